// The package as built here, with its defaults: durable when writeBatch resolves.
export * from '../../dist/index.mjs';
