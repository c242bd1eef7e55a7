/**
 * Binary values: Buffers and typed arrays. To JSON they are lists of numbers; a megabyte of them is compared and printed here as a whole,
 * with the same outcome as number by number.
 */
import { types } from 'node:util';

type Numbers = NodeJS.TypedArray;

const bufferToJson = Buffer.prototype.toJSON;

/** Whether an object is a Buffer that JSON sees as all Buffers; one whose `toJSON` was replaced may mean something else. */
export function isBuffer(source: object): source is Buffer {
  return (source as { toJSON?: unknown }).toJSON === bufferToJson && types.isUint8Array(source);
}

/** Whether two Buffers hold the same bytes, which is when their texts are the same. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

/** Whether two typed arrays print the same numbers, also when they are of different classes. NaN and the infinities print the same. */
export function sameNumbers(a: Numbers, b: Numbers): boolean {
  if (types.isUint8Array(a) && types.isUint8Array(b)) {
    return sameBytes(a, b);
  }
  if (a.length !== b.length) {
    return false;
  }
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const y = b[i];
    if (x !== y && !(isNull(x) && isNull(y))) {
      return false;
    }
  }
  return true;
}

/** The text of what a Buffer's `toJSON` returns, with its keys sorted or in the order that `toJSON` gives them. */
export function bufferText(source: Buffer, sorted: boolean): string {
  const numbers = bytesText(source);
  return sorted ? `{"data":${numbers},"type":"Buffer"}` : `{"type":"Buffer","data":${numbers}}`;
}

/** The text of a typed array as an array of its numbers; bigints are strings of digits, as everywhere in texts. */
export function numbersText(source: Numbers): string {
  if (types.isUint8Array(source) || types.isUint8ClampedArray(source)) {
    return bytesText(source);
  }
  if (types.isBigInt64Array(source) || types.isBigUint64Array(source)) {
    return source.length === 0 ? '[]' : `["${source.join('","')}"]`;
  }
  return JSON.stringify(Array.from(source as Exclude<Numbers, BigInt64Array | BigUint64Array>));
}

function isNull(value: unknown): boolean {
  return typeof value === 'number' && !Number.isFinite(value);
}

const [COMMA, ZERO, OPEN, CLOSE] = [0x2c, 0x30, 0x5b, 0x5d];

/** Writes the digits as bytes, and makes a string of them once: far faster than adding up a million short strings. */
function bytesText(source: Uint8Array | Uint8ClampedArray): string {
  if (source.length === 0) {
    return '[]';
  }
  const text = Buffer.allocUnsafe(source.length * 4 + 1);
  let at = 0;
  for (let i = 0; i < source.length; i++) {
    const byte = source[i] as number;
    text[at++] = i === 0 ? OPEN : COMMA;
    if (byte >= 100) text[at++] = ZERO + Math.trunc(byte / 100);
    if (byte >= 10) text[at++] = ZERO + (Math.trunc(byte / 10) % 10);
    text[at++] = ZERO + (byte % 10);
  }
  text[at++] = CLOSE;
  return text.toString('latin1', 0, at);
}
