/**
 * A JSON printer that needs no stack: for values too deep for recursion, for the less common kinds of value, and for the
 * rules that differ from `JSON.stringify`.
 *
 * The fast paths (`canonical.ts`, `field-text.ts`) recurse, or leave the work to `JSON.stringify`, and hand over to this one
 * where they cannot go on. A set of {@link TextRules} says what is printed.
 */
import { types } from 'node:util';
import { bufferText, isBuffer, numbersText } from './binary';

/** How many levels of arrays and objects a value may have: `[]` has one. */
export const LEVELS_MAX = 10_000;

/** What a printer does where the kinds of text differ. */
export interface TextRules {
  /** Whether the keys of an object are sorted by UTF-16 code unit; otherwise they stay in their own order. */
  readonly sorted: boolean;
  /** What a hole in an array prints. */
  readonly hole: string;
  /** Whether a property that holds a function or symbol is left out, as `JSON.stringify` does; otherwise it prints `null`. */
  readonly dropsFunctions: boolean;
  /** Whether `toJSON` is called, and boxed primitives are opened, as `JSON.stringify` does. */
  readonly callsToJson: boolean;
  /** Whether Map, Set and typed arrays print what they hold; otherwise they print as the objects they are. */
  readonly opensCollections: boolean;
}

/** The canonical text of holdfast: what `stableStringify` (`canonical.ts`) says in its description. */
export const CANONICAL_RULES: TextRules = {
  sorted: true,
  hole: 'null',
  dropsFunctions: false,
  callsToJson: true,
  opensCollections: true,
};

/** The canonical text of the original: every object is its own enumerable keys, and nothing else. */
export const ORIGINAL_RULES: TextRules = {
  sorted: true,
  hole: '',
  dropsFunctions: false,
  callsToJson: false,
  opensCollections: false,
};

/** `JSON.stringify`, except that a bigint prints as a string of digits instead of throwing. */
export const FIELD_RULES: TextRules = {
  sorted: false,
  hole: 'null',
  dropsFunctions: true,
  callsToJson: true,
  opensCollections: false,
};

/** One container that is being printed. */
class Frame {
  /** The next key or index. */
  next = 0;
  /** The texts of a `pairs` frame, which are sorted when it closes. */
  readonly texts: string[] = [];

  constructor(
    readonly source: object,
    /** `pairs` prints the entries of a Map or Set, sorted by their texts. */
    readonly kind: 'object' | 'array' | 'pairs',
    /** The keys of an object, or what is read by index. */
    readonly items: ArrayLike<unknown>,
    /** What is printed so far. */
    public text: string,
    readonly close: string,
  ) {}

  addElement(text: string): void {
    if (this.kind === 'pairs') {
      this.texts.push(text);
    } else {
      // `next` has moved on already.
      this.text += this.next === 1 ? text : `,${text}`;
    }
  }

  finish(): string {
    return this.kind === 'pairs' ? this.text + this.texts.sort().join(',') + this.close : this.text + this.close;
  }
}

/**
 * Returns the text of a value, or `''` where JSON leaves it out (`undefined`).
 *
 * @param value any value
 * @param rules what is printed
 * @param depth how many containers `value` is inside of
 * @param key the property or index that holds it, for `toJSON`
 * @param opened whether `toJSON` was called already
 * @throws {RangeError} when the value contains itself, or has more than {@link LEVELS_MAX} levels
 */
export function printText(value: unknown, rules: TextRules, depth = 0, key = '', opened = false): string {
  return new Printer(rules, depth).print(value, key, opened);
}

class Printer {
  private readonly frames: Frame[] = [];
  /** The containers around the current one: meeting one of them again is a cycle. */
  private readonly around = new Set<object>();

  constructor(
    private readonly rules: TextRules,
    private readonly depth: number,
  ) {}

  print(value: unknown, key: string, opened: boolean): string {
    let text = this.start(value, key, opened, false);
    for (;;) {
      const frame = this.frames.at(-1);
      if (frame === undefined) {
        return text;
      }
      if (frame.next < frame.items.length) {
        this.step(frame);
        continue;
      }
      text = frame.finish();
      this.frames.pop();
      this.around.delete(frame.source);
      const parent = this.frames.at(-1);
      if (parent?.kind === 'object') {
        parent.text += text;
      } else {
        parent?.addElement(text);
      }
    }
  }

  /** Prints the next item of a container, or opens the frame that will print it. */
  private step(frame: Frame): void {
    const index = frame.next++;
    if (frame.kind === 'object') {
      const key = frame.items[index] as string;
      const text = this.start((frame.source as Record<string, unknown>)[key], key, false, true);
      // The key goes first, also when the value follows later: it is added when its frame closes.
      if (text !== '' || this.frames.at(-1) !== frame) {
        frame.text += `${frame.text === '{' ? '' : ','}${JSON.stringify(key)}:${text}`;
      }
    } else if (frame.kind === 'array' && !(index in frame.items)) {
      frame.addElement(this.rules.hole);
    } else {
      const text = this.start(frame.items[index], String(index), false, false);
      if (this.frames.at(-1) === frame) {
        frame.addElement(text === '' ? 'null' : text);
      }
    }
  }

  /** Returns the text of a scalar or of a binary value; for another container returns `''` and opens its frame. */
  private start(value: unknown, key: string, opened: boolean, inProperty: boolean): string {
    let meant = value;
    if (this.rules.callsToJson && typeof meant === 'object' && meant !== null) {
      // Two levels: the object, and the array in it.
      if (!opened && isBuffer(meant) && this.depth + this.frames.length + 2 <= LEVELS_MAX) {
        return bufferText(meant, this.rules.sorted);
      }
      const toJson = opened ? undefined : (meant as { toJSON?: unknown }).toJSON;
      meant = typeof toJson === 'function' ? (toJson.call(meant, key) as unknown) : meant;
      meant = types.isBoxedPrimitive(meant) ? (meant.valueOf() as unknown) : meant;
    }
    switch (typeof meant) {
      case 'string':
        return JSON.stringify(meant);
      case 'number':
        return numberText(meant);
      case 'boolean':
        return meant ? 'true' : 'false';
      case 'bigint':
        return `"${meant}"`;
      case 'undefined':
        return '';
      case 'object':
        return meant === null ? 'null' : this.open(meant);
      default:
        return this.rules.dropsFunctions && inProperty ? '' : 'null';
    }
  }

  private open(source: object): string {
    const cyclic = this.around.has(source);
    if (cyclic || this.depth + this.frames.length >= LEVELS_MAX) {
      throw noText(cyclic);
    }
    if (this.rules.opensCollections && types.isTypedArray(source)) {
      return numbersText(source);
    }
    this.around.add(source);
    this.frames.push(frameOf(source, this.rules));
    return '';
  }
}

function frameOf(source: object, rules: TextRules): Frame {
  if (Array.isArray(source)) {
    return new Frame(source, 'array', source, '[', ']');
  }
  if (rules.opensCollections) {
    if (types.isMap(source)) {
      return new Frame(source, 'pairs', [...source], '{"$map":[', ']}');
    }
    if (types.isSet(source)) {
      return new Frame(source, 'pairs', [...source], '{"$set":[', ']}');
    }
  }
  const keys = Object.keys(source);
  return new Frame(source, 'object', rules.sorted ? keys.sort() : keys, '{', '}');
}

/** Returns the text of a number, which is `null` for NaN and the infinities. */
export function numberText(value: number): string {
  return Number.isFinite(value) ? String(value) : 'null';
}

/** Returns the error for a value that has no text. It never shows the value. */
function noText(cyclic: boolean): RangeError {
  return new RangeError(
    cyclic
      ? 'the value contains itself, so it has no JSON text; remove the reference that leads back'
      : `the value has more than ${LEVELS_MAX} levels of arrays and objects, so it gets no JSON text; make it flatter`,
  );
}
