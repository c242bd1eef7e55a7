/** TLS options as `pg` takes them, for the native engine. */

/** TLS as the native engine takes it: off, on with everything verified, or by these PEM texts. */
export type DerivedTls =
  | boolean
  | { ca?: string[]; cert?: string; key?: string; rejectUnauthorized: boolean; servername?: string };

/** What the native engine can do of Node's TLS options. */
const TLS_OPTIONS: ReadonlySet<string> = new Set(['ca', 'cert', 'key', 'rejectUnauthorized', 'servername']);

/** Maps `ssl` of a `pg` connection, or says why it cannot be mapped. */
export function deriveTls(ssl: unknown): DerivedTls | string {
  if (ssl === undefined || ssl === null || ssl === false || ssl === '') return false;
  if (ssl === true) return true;
  if (!isDictionary(ssl) || Array.isArray(ssl)) return '`ssl` is neither a boolean nor an object';
  // `for … in` and own names: `pg` makes `key` non-enumerable, and classes have their options on the prototype.
  const names = new Set([...Object.getOwnPropertyNames(ssl)]);
  for (const name in ssl) names.add(name);
  const odd = [...names].find((name) => !TLS_OPTIONS.has(name) && ssl[name] !== undefined);
  if (odd !== undefined) return `\`ssl\` has the option \`${odd}\``;

  const ca = ssl.ca === undefined || ssl.ca === null ? [] : [ssl.ca].flat().map(pem);
  const [cert, key] = [ssl.cert, ssl.key].map((each) => (each === undefined || each === null ? undefined : pem(each)));
  if ([...ca, cert, key].includes(null)) return '`ca`, `cert` or `key` of `ssl` is not PEM text';
  if (key?.includes('ENCRYPTED')) return 'the key of `ssl` is encrypted';
  const rejectUnauthorized = ssl.rejectUnauthorized !== false;
  const servername = typeof ssl.servername === 'string' && ssl.servername !== '' ? ssl.servername : undefined;
  if (rejectUnauthorized && ca.length === 0 && !cert && !key && servername === undefined) return true;
  return {
    ...(ca.length > 0 && { ca: ca as string[] }),
    ...(cert && { cert }),
    ...(key && { key }),
    rejectUnauthorized,
    ...(servername !== undefined && { servername }),
  };
}

function pem(value: unknown): string | null {
  const text = value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : value;
  return typeof text === 'string' && text.includes('-----BEGIN ') ? text : null;
}

function isDictionary(value: unknown): value is Record<string, unknown> {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}
