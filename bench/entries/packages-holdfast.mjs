// The package's reconciler as built here.
//
// A packages contender exports any of
//   packDir({ parentDir, entryName }), unpackInto({ targetDir, bytes })
//   createReconcileFsDeps, reconcileToHash, as holdfast has them
export * from '../../dist/packages.mjs';
