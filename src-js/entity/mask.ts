/** Masking: secrets in texts and in whole values become `****`. */
import { copyValue, type CopyRules } from './copy';
import { SecretSearch } from './secret-search';

/** What stands for a secret, unless the caller chose something else. */
export const DEFAULT_MASK_TOKEN = '****';

/** Shorter values (in UTF-16 code units) are no secrets: replacing them would shred every text. */
export const MIN_MASKABLE_LENGTH = 4;

/** A set of secrets, made ready to be looked for. */
export interface SecretMatcher {
  /** Whether there is nothing to look for. */
  readonly isEmpty: boolean;
  /** Replaces the secrets in a text; see {@link maskSecrets}. */
  maskText(text: string): string;
  /** Replaces the secrets in a value; see {@link maskSecretsDeep}. */
  maskDeep(value: unknown): unknown;
}

/**
 * Makes a set of secrets ready to be looked for. Worth keeping: it takes as long as masking a few hundred fields.
 *
 * @param values the secrets; what is no string, or shorter than {@link MIN_MASKABLE_LENGTH}, is ignored
 */
export function compileSecrets(values: Iterable<string>, token: string = DEFAULT_MASK_TOKEN): SecretMatcher {
  const secrets = maskable(values);
  if (secrets.length === 0) {
    return { isEmpty: true, maskText: (text) => text, maskDeep: (value) => value };
  }
  const search = new SecretSearch(secrets, token);
  const maskText = (text: string): string => search.replace(text);
  const rules: CopyRules = { text: maskText, endless: () => token };
  return { isEmpty: false, maskText, maskDeep: (value) => copyValue(value, rules) };
}

/** Returns the values that can be masked, each once, in their order. */
export function maskable(values: Iterable<string>): string[] {
  return [...new Set(values)].filter((value) => typeof value === 'string' && value.length >= MIN_MASKABLE_LENGTH);
}

/**
 * Replaces every secret in a text by a token.
 *
 * Secrets are found literally, by UTF-16 code unit; an encoded form (base64, URL encoding) is not. Where found secrets overlap, one
 * token replaces all of them; where they only touch, each gets its own. The token itself is not searched.
 *
 * @param text the text
 * @param values the secrets; those shorter than {@link MIN_MASKABLE_LENGTH} are ignored
 * @param token what replaces a secret, also `''`. Default: {@link DEFAULT_MASK_TOKEN}
 *
 * @example
 * ```ts
 * maskSecrets({ text: 'Bearer s3cr3t', values: ['s3cr3t'] }); // 'Bearer ****'
 * ```
 */
export function maskSecrets({ text, values, token }: { text: string; values: Iterable<string>; token?: string }): string {
  return compileSecrets(values, token).maskText(text);
}

/**
 * Returns a value with every secret in its strings and keys replaced by a token; see {@link maskSecrets}.
 *
 * Without a secret to look for it is the same value. Otherwise it is a copy: Dates and typed arrays are copied as they are, Maps and
 * Sets with masked entries, what has a `toJSON` is replaced by what that returns, other class instances become plain objects.
 * Keys that become the same get a suffix (`****`, `****#2`). A reference of the value to itself becomes the token. Numbers,
 * booleans, bigints, functions and symbols stay.
 */
export function maskSecretsDeep({ value, values, token }: { value: unknown; values: Iterable<string>; token?: string }): unknown {
  return compileSecrets(values, token).maskDeep(value);
}
