/** Content hashes. */
import { checkString } from './check';
import { native } from './native';

/** Returns `sha256:` and the lower-case hex of SHA-256 over the UTF-8 bytes of `text`. */
export function contentHash(text: string): string {
  return native.contentHash(checkString(text, 'raw'));
}
