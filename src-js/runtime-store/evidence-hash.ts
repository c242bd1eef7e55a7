import { invalidArgument } from '../check';
import { contentHash } from '../hash';

/** Keys whose values are secrets. The original format's list, and `cookie`, `credential`, `passwd`, which it let through. */
const SECRET_KEY = /token|secret|password|passwd|api[_-]?key|authorization|cookie|credential/i;

const REDACTED = '[redacted]';

/**
 * Copies launch evidence with every secret replaced by `'[redacted]'`.
 *
 * Arrays and objects are walked to the bottom. The value of every key that matches
 * `/token|secret|password|passwd|api[_-]?key|authorization|cookie|credential/i` is replaced, whatever it holds, without being
 * read. Values are *not* scanned: a secret in a plain text, such as a diagnostic line, stays.
 *
 * Of an object only its own enumerable string keys are taken, in their order, so that a `Date`, `Map` or `Set` becomes `{}`.
 * An own key `__proto__` is copied as a key like any other and never becomes the copy's prototype.
 *
 * @param evidence any value; it is not changed
 * @returns a copy that shares nothing with `evidence`, except functions
 * @throws {TypeError} when `evidence` contains itself
 */
export function redactOpenCodeLaunchEvidence(evidence: unknown): unknown {
  return copyTree(evidence, REDACTING);
}

/**
 * Hashes launch evidence: the `evidenceHash` of a checkpoint.
 *
 * The hash is `sha256:` and the hex SHA-256 of the compact JSON of the redacted evidence
 * ({@link redactOpenCodeLaunchEvidence}) with sorted keys: array indexes (`0` to `4294967294`) first, by number, then the rest
 * by UTF-16 code unit. Keys with the value `undefined` are left out; `NaN`, `Infinity` and `-Infinity` count as strings of
 * their names; everything else is written as `JSON.stringify` writes it. So two pieces of evidence that differ only in the
 * order of keys, or in their secrets, hash alike.
 *
 * @param evidence any value that JSON has a text for
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` when JSON has no text for `evidence` itself (`undefined`, a function, a symbol)
 * @throws {TypeError} the engine's own, when `evidence` contains itself or a `bigint`
 *
 * @example
 * ```ts
 * createOpenCodeLaunchEvidenceHash({ token: 'a', ok: true }) === createOpenCodeLaunchEvidenceHash({ ok: true, token: 'b' });
 * ```
 */
export function createOpenCodeLaunchEvidenceHash(evidence: unknown): string {
  const text: unknown = JSON.stringify(copyTree(redactOpenCodeLaunchEvidence(evidence), CANONICAL));
  if (typeof text !== 'string') {
    throw invalidArgument('evidence', 'a value that JSON has a text for (null where there is no evidence)', evidence);
  }
  return contentHash(text);
}

interface CopyRules {
  /** Returns the keys of an object's copy, in order. */
  keys: (source: object) => string[];
  /** Tells whether the value of `key` is replaced instead of read. */
  isSecret: (key: string) => boolean;
  /** Copies a value that is neither an array nor an object. */
  leaf: (value: unknown) => unknown;
}

const REDACTING: CopyRules = { keys: Object.keys, isSecret: (key) => SECRET_KEY.test(key), leaf: (value) => value };

/** Inserting in sorted order is enough: the engine itself keeps array-index keys in front, by number. */
const CANONICAL: CopyRules = {
  keys: (source) => Object.keys(source).sort(),
  isSecret: () => false,
  leaf: (value) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value),
};

/** Copies arrays and objects all the way down. */
function copyTree(root: unknown, rules: CopyRules): unknown {
  // The objects on the way from the root to the current value; meeting one of them again means a cycle.
  const ancestors = new Set<object>();
  const copyObject = (source: object): Record<string, unknown> => {
    const copy: Record<string, unknown> = {};
    for (const key of rules.keys(source)) {
      setOwn(copy, key, rules.isSecret(key) ? REDACTED : copyValue((source as Record<string, unknown>)[key]));
    }
    return copy;
  };
  const copyValue = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return rules.leaf(value);
    if (ancestors.has(value)) throw new TypeError('Converting circular structure to JSON: the launch evidence contains itself');
    ancestors.add(value);
    // Array.from turns the holes of a sparse array into undefined; JSON writes both as null.
    const copy = Array.isArray(value) ? Array.from(value, (item) => copyValue(item)) : copyObject(value);
    ancestors.delete(value);
    return copy;
  };
  return copyValue(root);
}

/** Sets an own property. Plain assignment to `__proto__` would set the prototype instead, and lose the key. */
function setOwn(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key === '__proto__') Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
  else target[key] = value;
}
