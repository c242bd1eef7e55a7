/** Keeps the event loop turning between two pieces of work on large data. */

/** From this many characters on, parsing or printing a text takes long enough (about a millisecond) to pause after it. */
const LARGE = 256 * 1024;

/** Lets the event loop turn once if the text just handled was large. */
export function breathe(length: number): Promise<void> | undefined {
  return length < LARGE ? undefined : new Promise((resolve) => setImmediate(resolve));
}
