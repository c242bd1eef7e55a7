// The package with `durability: 'process'`: survives a kill, not a power cut.
export * from '../../dist/index.mjs';
export const writerOptions = { durability: 'process' };
