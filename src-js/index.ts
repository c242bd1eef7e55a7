/** holdfast: runtime state that survives. */
export { ERROR_CODES, HoldfastError, type HoldfastErrorCode, type HoldfastErrorOptions } from './errors';
export * from './runtime-store';
export * from './entity';
export * from './packages';
export * from './lifecycle';
export * from './session-graph';
