import { createHash } from 'node:crypto';

/**
 * Returns the content hash of a text: `sha256:` and 64 lower-case hex digits, over the text's UTF-8 bytes.
 *
 * Lone surrogates are hashed as U+FFFD, which is what would be written to a file in their place.
 */
export function contentHash(text: string): string {
  return `sha256:${createHash('sha256').update(text, 'utf8').digest('hex')}`;
}
