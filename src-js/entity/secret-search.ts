/**
 * Finding many secrets in a text in one pass.
 *
 * A text is walked by a window as long as the shortest secret. The last four code units of the window tell, from a table, how far it can
 * move at least before a secret can begin in it (Wu and Manber's method); most of a text is never read. Where the table says "here",
 * a trie of the secrets finds the longest one. So a text costs at most its length times that of the longest secret.
 */

/** The code units that the table looks at. No secret is shorter. */
const BLOCK = 4;

/** How much of each secret the table knows: longer windows move little faster, and fill the table. */
const WINDOW_MAX = 32;

/** A branching of the trie: what the secrets that begin alike go on with. */
interface Node {
  /** The code units from the branching before to this one. */
  readonly label: string;
  /** Whether a secret ends here. */
  readonly ends: boolean;
  /** By the first code unit of its label. */
  readonly children: Map<number, Node>;
}

/** Replaces every occurrence of some secrets by a token. */
export class SecretSearch {
  private readonly window: number;
  private readonly shifts: Uint8Array;
  /** Takes the top bits of a hash, as an index into `shifts`. */
  private readonly hashShift: number;
  private readonly root: Node;

  /** @param secrets at least one, none shorter than four code units, each once */
  constructor(
    secrets: readonly string[],
    private readonly token: string,
  ) {
    this.window = secrets.reduce((least, { length }) => Math.min(least, length), WINDOW_MAX);
    const blocks = secrets.length * (this.window - BLOCK + 1);
    const bits = Math.min(16, Math.max(8, 36 - Math.clz32(blocks)));
    this.hashShift = 32 - bits;
    this.shifts = new Uint8Array(1 << bits).fill(this.window - BLOCK + 1);
    for (const secret of secrets) {
      for (let end = BLOCK; end <= this.window; end++) {
        const at = this.hash(secret, end - BLOCK);
        this.shifts[at] = Math.min(this.shifts[at] as number, this.window - end);
      }
    }
    this.root = trieOf([...secrets].sort());
  }

  /** Returns the text with one token for each run of overlapping secrets; the same text when there is none. */
  replace(text: string): string {
    const { window, shifts } = this;
    let masked = '';
    let copied = 0;
    // The run of overlapping secrets found last; it is replaced when the next one does not overlap it.
    let from = -1;
    let to = -1;
    for (let end = window; end <= text.length; ) {
      const shift = shifts[this.hash(text, end - BLOCK)] as number;
      if (shift > 0) {
        end += shift;
        continue;
      }
      const start = end - window;
      const length = this.longestAt(text, start);
      if (length > 0) {
        if (start >= to) {
          if (to > 0) {
            masked += text.slice(copied, from) + this.token;
            copied = to;
          }
          from = start;
        }
        to = Math.max(to, start + length);
      }
      end++;
    }
    return to < 0 ? text : masked + text.slice(copied, from) + this.token + text.slice(to);
  }

  /** Returns the length of the longest secret that begins at an index, or 0. */
  private longestAt(text: string, start: number): number {
    let node: Node | undefined = this.root;
    let at = start;
    let longest = 0;
    while (at < text.length && (node = node.children.get(text.charCodeAt(at))) !== undefined && text.startsWith(node.label, at)) {
      at += node.label.length;
      longest = node.ends ? at - start : longest;
    }
    return longest;
  }

  private hash(text: string, at: number): number {
    const high = (text.charCodeAt(at) << 16) ^ text.charCodeAt(at + 1);
    const low = (text.charCodeAt(at + 2) << 16) ^ text.charCodeAt(at + 3);
    return (Math.imul(high, 0x9e3779b1) ^ Math.imul(low, 0x85ebca6b)) >>> this.hashShift;
  }
}

/** @param secrets sorted by code unit, so that those that begin alike stand together */
function trieOf(secrets: readonly string[]): Node {
  const root: Node = { label: '', ends: false, children: new Map() };
  const open = [{ node: root, first: 0, end: secrets.length, depth: 0 }];
  for (let part = open.pop(); part !== undefined; part = open.pop()) {
    const { node, end, depth } = part;
    // The secret that ends at this branching, if there is one, stands first.
    for (let first = part.first + (node.ends ? 1 : 0); first < end; ) {
      const unit = (secrets[first] as string).charCodeAt(depth);
      let next = first + 1;
      while (next < end && (secrets[next] as string).charCodeAt(depth) === unit) {
        next++;
      }
      const secret = secrets[first] as string;
      const common = commonLength(secret, secrets[next - 1] as string, depth);
      const child = { label: secret.slice(depth, common), ends: secret.length === common, children: new Map() };
      node.children.set(unit, child);
      open.push({ node: child, first, end: next, depth: common });
      first = next;
    }
  }
  return root;
}

/** Returns how many code units two texts begin with in common, at least `known`. */
function commonLength(a: string, b: string, known: number): number {
  let length = known;
  while (length < a.length && a.charCodeAt(length) === b.charCodeAt(length)) {
    length++;
  }
  return length;
}
