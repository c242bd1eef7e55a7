/** Constants, and the verdict on sizes. */
import { invalidArgument } from '../check';
import { checkInput } from './arguments';
import { megabytes } from './support';
import type { SizeCapConfig, SizeCapVerdict } from './types';

/** 150 MiB. */
export const DEFAULT_WARN_BYTES = 157_286_400;
/** 300 MiB. */
export const DEFAULT_BLOCK_BYTES = 314_572_800;
/** One hour. */
export const DEFAULT_TREE_GC_GRACE_MS = 3_600_000;
/** One day. */
export const DEFAULT_BLOB_GC_GRACE_MS = 86_400_000;
/** Manifests before the newest whose blobs stay. */
export const DEFAULT_BLOB_GC_RETAIN_PREVIOUS = 1;
/** The file in a tree that says since when it is not the current one. */
export const RETIRED_AT_MARKER = '.retired-at';

/** Judges the size of a set of packages. Exactly at a bound is not over it. */
export function evaluateSizeCap(input: { totalSizeBytes: number; cap: SizeCapConfig }): SizeCapVerdict {
  const { totalSizeBytes, cap } = checkInput(input);
  const { warnBytes, blockBytes } = checkInput(cap, 'cap');
  // Compared with what is no number every size is small enough.
  for (const [name, value] of Object.entries({ totalSizeBytes, 'cap.warnBytes': warnBytes, 'cap.blockBytes': blockBytes })) {
    if (typeof value !== 'number' || Number.isNaN(value)) throw invalidArgument(name, 'a number of bytes', value);
  }
  const size = `Resolved package size ${megabytes(totalSizeBytes)} exceeds the`;
  if (totalSizeBytes > blockBytes) {
    return { level: 'block', message: `${size} ${megabytes(blockBytes)} block threshold. Remove packages or raise the cap.` };
  }
  if (totalSizeBytes > warnBytes) {
    return { level: 'warn', message: `${size} ${megabytes(warnBytes)} warning threshold.` };
  }
  return { level: 'ok' };
}
