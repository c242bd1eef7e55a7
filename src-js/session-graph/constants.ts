/** Numbers and descriptors that are part of the format. */
import type { BlobArtifactDescriptor } from './store-types';

/** The version of the files that this version of holdfast writes. */
export const SESSION_SCHEMA_VERSION = 3;

/** A lease that fits most turns: 15 minutes, in milliseconds. */
export const QUEUED_WORK_CLAIM_TTL_MS = 900_000;

/** What is usually stored. */
export const BlobDescriptors: {
  readonly [K in 'checkpointManifest' | 'toolState' | 'pluginSessionSnapshot' | 'executionStateSnapshot' | 'module']: BlobArtifactDescriptor;
} = {
  checkpointManifest: { kind: 'checkpointManifest', hints: ['compressible'] },
  toolState: { kind: 'toolState', hints: ['compressible', 'largePayload'] },
  pluginSessionSnapshot: { kind: 'pluginSessionSnapshot', hints: ['compressible', 'largePayload'] },
  executionStateSnapshot: { kind: 'executionStateSnapshot', hints: ['compressible', 'largePayload'] },
  module: { kind: 'module', hints: ['compressible', 'largePayload'] },
};
