// @pool forks: what counts happens in processes of its own.
// The documentation must be true: its programs run, its examples are what is on the disk, its lists are complete.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ERROR_CODES, blobSha256, computeLockfileHash, computeRuntimeStoreContentHash, createReconcileFsDeps, packDir, reconcileToHash } from 'holdfast';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.resolve(__dirname, '..');
const pages = readdirSync(path.join(root, 'docs')).filter((name) => name.endsWith('.md'));
const page = (name: string): string => readFileSync(path.join(root, 'docs', name), 'utf8');

interface Block {
  language: string;
  label: string;
  text: string;
}

/** The fenced blocks of a page: ```` ```<language> <label> ````. */
function blocks(text: string): Block[] {
  return [...text.matchAll(/^```(\w*) ?(.*)\n([\s\S]*?)^```$/gm)].map(([, language = '', label = '', body = '']) => ({ language, label, text: body }));
}

let project: string;

beforeAll(() => {
  project = mkdtempSync(path.join(tmpdir(), 'holdfast-docs-'));
  mkdirSync(path.join(project, 'node_modules'));
  symlinkSync(root, path.join(project, 'node_modules/holdfast'), 'junction');
});

afterAll(() => rmSync(project, { recursive: true, force: true }));

function run(file: string, ...args: string[]) {
  const env = { ...process.env, TMPDIR: project, NO_COLOR: '1', FORCE_COLOR: undefined };
  return spawnSync(process.execPath, [file, ...args], { cwd: project, encoding: 'utf8', env });
}

describe.each(pages)('docs/%s', (name) => {
  const all = blocks(page(name));

  test('its js blocks are one program, which prints its text blocks', () => {
    const program = all.filter(({ language }) => language === 'js').map(({ text }) => text);
    if (program.length === 0) return;
    const file = path.join(project, name.replace(/\.md$/, '.mjs'));
    writeFileSync(file, program.join('\n'));
    const { status, stdout, stderr } = run(file);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const printed = all.filter(({ language, label }) => language === 'text' && label === '').map(({ text }) => text);
    expect(words(stdout)).toBe(words(printed.join('')));
  });

  test('holds no block that nothing checks', () => {
    const checked = ['js', 'ts', 'json', 'text'];
    expect(all.filter(({ language }) => !checked.includes(language))).toEqual([]);
    for (const { text } of all.filter(({ language }) => language === 'json')) expect(() => JSON.parse(text)).not.toThrow();
  });

  test('its links and the files that it names exist', () => {
    const text = page(name);
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, target]) => path.join('docs', target!));
    const files = [...text.matchAll(/`((?:__test__|tests|src|src-js|examples|bench)\/[\w./-]+\.\w+)`/g)].map(([, file]) => file!);
    expect([...links, ...files].filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
    const anchors = [...text.matchAll(/\]\(#([\w-]+)\)/g)].map(([, anchor]) => anchor!);
    const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading!.toLowerCase().replace(/[^\w\s-]/g, '').replaceAll(' ', '-'));
    expect(anchors.filter((anchor) => !headings.includes(anchor))).toEqual([]);
  });

  // The compiler does not care who starts it: once, in the first of the three runs of this suite, is enough.
  test.skipIf(process.versions.bun)('its ts blocks are sound', () => {
    const sources = all.filter(({ language }) => language === 'ts').map(({ text }, index) => {
      const file = path.join(project, `${name.replace(/\.md$/, '')}-${index}.mts`);
      writeFileSync(file, text);
      return file;
    });
    if (sources.length === 0) return;
    const options = ['--noEmit', '--strict', '--module', 'node16', '--moduleResolution', 'node16', '--target', 'es2022', '--lib', 'es2022,esnext.disposable'];
    const types = ['--types', 'node', '--typeRoots', path.join(root, 'node_modules/@types')];
    const { status, stdout } = run(path.join(root, 'node_modules/typescript/bin/tsc'), ...options, ...types, ...sources);
    expect(stdout).toBe('');
    expect(status).toBe(0);
  });
});

describe('docs/errors.md', () => {
  const text = page('errors.md');
  const sections = [...text.matchAll(/^## (HF_\w+)\n([\s\S]*?)(?=^#{1,2} |(?![\s\S]))/gm)].map(([, code, body]) => ({ code: code!, body: body! }));

  test('has a section for every code, and for nothing else', () => {
    const engine = readFileSync(path.join(root, 'src/error.rs'), 'utf8').split('codes! {')[1]!.split('\n}')[0]!;
    const codes = [...engine.matchAll(/= "(HF_\w+)"/g)].map(([, code]) => code!);
    expect(codes).toEqual([...ERROR_CODES]);
    expect(sections.map(({ code }) => code).sort()).toEqual([...codes].sort());
  });

  test('says for each what caused it and what to do', () => {
    const bare = sections.filter(({ body }) => !/\*\*Cause\.\*\* \S/.test(body) || !/\*\*To do\.\*\* \S/.test(body));
    expect(bare.map(({ code }) => code)).toEqual([]);
  });
});

describe('docs/durability.md', () => {
  test('names for every promise a test that holds it', () => {
    const rows = page('durability.md').split('\n').filter((line) => line.startsWith('| ') && !/^\| (event|---)/.test(line));
    const promises = rows.filter((row) => row.split('|').length === 6);
    expect(promises.length).toBeGreaterThanOrEqual(8);
    expect(promises.filter((row) => !/`(__test__|tests|src)\//.test(row))).toEqual([]);
  });
});

describe('docs/formats.md', () => {
  const examples = blocks(page('formats.md')).filter(({ label }) => label !== '');
  const example = (label: string): string => examples.find((block) => block.label === label)!.text;
  let dir: string;

  // The two batches that the page describes; the second one is killed while it is published.
  const writer = `
    import path from 'node:path';
    import * as holdfast from 'holdfast';
    const [dir, number, point] = process.argv.slice(2);
    const clock = () => new Date('2026-04-21T12:00:00.000Z');
    const manifest = holdfast.createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'team-a', clock });
    const receipts = holdfast.createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json'), clock });
    const writer = new holdfast.RuntimeStoreBatchWriter(dir, manifest, receipts, {
      clock,
      batchIdFactory: () => 'batch-' + number,
      receiptIdFactory: () => 'receipt-' + number,
      faults: point ? [{ point, action: 'kill' }] : undefined,
    });
    const writes = [{ descriptor: holdfast.OPENCODE_RUNTIME_STORE_DESCRIPTORS[0], data: { v: Number(number) } }];
    const identity = { teamName: 'team-a', runId: 'run-1', capabilitySnapshotId: 'cap-1', behaviorFingerprint: 'fp-1' };
    await writer.writeBatch({ ...identity, reason: 'launch_checkpoint', writes });
  `;

  beforeAll(() => {
    dir = path.join(project, 'team-a');
    const file = path.join(project, 'two-batches.mjs');
    writeFileSync(file, writer);
    expect(run(file, dir, '1').stderr).toBe('');
  });

  const onDisk = (name: string): string => readFileSync(path.join(dir, name), 'utf8');

  test('shows the files of a batch as they are', () => {
    expect(onDisk('launch-state.json')).toBe(example('launch-state.json'));
    expect(page('formats.md')).toContain(computeRuntimeStoreContentHash(example('launch-state.json')));
    for (const name of ['manifest.json', 'receipts.json']) expect(withoutTimes(onDisk(name))).toBe(withoutTimes(example(name)));
  });

  test('shows the redo folder and the locks of a batch under way as they are', () => {
    const { stderr } = run(path.join(project, 'two-batches.mjs'), dir, '2', 'between_publish');
    expect(stderr).toBe('');
    const folder = path.join(dir, '.holdfast/stage/batch-2');
    const named = ['next', 'prior'].flatMap((kind) => [0, 1, 2].map((i) => `${kind}-${i}`));
    expect(readdirSync(folder).sort()).toEqual(['intent.json', ...named].sort());

    const text = readFileSync(path.join(folder, 'intent.json'), 'utf8');
    expectLike(JSON.parse(withoutTimes(text)), JSON.parse(withoutTimes(example('intent.json'))));
    const raw = /"intent":(.*)\}\n$/s.exec(text)![1]!;
    expect(JSON.parse(text).checksum).toBe(computeRuntimeStoreContentHash(raw));

    const lines = onDisk('manifest.json.lock').split('\n');
    const shown = example('manifest.json.lock').split('\n');
    expect(lines).toHaveLength(shown.length);
    expect(lines[0]).toMatch(/^\d+$/);
    expect(lines[1]).toMatch(/^\d{13}$/);
    expect(lines[2]!.split(' ')).toHaveLength(shown[2]!.split(' ').length);
    expect(onDisk('.holdfast/lock')).toBe(onDisk('manifest.json.lock'));
  });
});

describe('docs/formats.md, packages', () => {
  const examples = blocks(page('formats.md'));
  const example = (label: string): string => examples.find((block) => block.label === label)!.text;
  let storeRoot: string;
  let hash: string;

  beforeAll(async () => {
    const folder = path.join(project, 'packages');
    mkdirSync(path.join(folder, 'hello@1.0.0'), { recursive: true });
    for (const [name, text] of [['package.json', '{ "name": "hello", "version": "1.0.0" }'], ['index.js', 'module.exports = "hello";']] as const) {
      writeFileSync(path.join(folder, 'hello@1.0.0', name), text, { mode: 0o644 });
    }
    const blob = await packDir({ parentDir: folder, entryName: 'hello@1.0.0' });
    const manifest = [{ name: 'hello', version: '1.0.0', integrity: 'sha512-of-the-npm-tarball', blobSha256: blobSha256(blob) }];
    storeRoot = path.join(folder, 'store');
    const deps = createReconcileFsDeps({ storeRoot, fetchBlob: async () => blob, linkMode: 'hardlink' });
    hash = computeLockfileHash(manifest);
    await reconcileToHash({ lockfileHash: hash, manifest, deps });
    await reconcileToHash({ lockfileHash: 'empty', manifest: [], deps });
  });

  const read = (...names: string[]): string => readFileSync(path.join(storeRoot, ...names), 'utf8');

  test('shows records, markers and lists as they are', () => {
    const [record] = readdirSync(path.join(storeRoot, '.hf/index'));
    expect(JSON.parse(read('.hf/index', record!))).toEqual(JSON.parse(example('index-record')));
    expect(readdirSync(path.join(storeRoot, 'cache/.cs-integrity'))).toEqual([Buffer.from('sha512-of-the-npm-tarball').toString('hex')]);
    const tree = JSON.parse(read('trees', hash, '.hf-tree.json'));
    expect({ ...tree, builtAt: 0 }).toEqual({ ...JSON.parse(example('.hf-tree.json')), builtAt: 0 });
    expect(read('trees', hash, '.hf-tree.files')).toBe(example('.hf-tree.files'));
    expect(JSON.parse(read('trees', hash, '.hf-tree.manifest'))).toEqual(JSON.parse(example('.hf-tree.manifest')));
  });

  test('names everything that is in a store', () => {
    const overview = example('package-store');
    for (const folder of ['.', '.hf', 'cache', `trees/${hash}`]) {
      const names = readdirSync(path.join(storeRoot, folder));
      expect(names.filter((name) => !overview.includes(name)), folder).toEqual([]);
    }
    const shape = (text: string): string => text.replace(/[0-9a-f]/g, '0').replace(/(^|\s)0+(?=\s)/g, '$10');
    const retired = read('trees', hash, '.retired-at');
    expect(shape(retired)).toBe(shape(process.platform === 'linux' ? example('.retired-at') : `${example('.retired-at').split('\n')[0]}\n`));
  });
});

/** Modification times differ each time. */
function withoutTimes(json: string): string {
  return json.replace(/("mtimeMs": ?)[\d.]+/g, '$10');
}

/** Compares with an example, in which `…` stands for the rest of a text. */
function expectLike(value: unknown, like: unknown, where = 'intent.json'): void {
  if (typeof like === 'string' && like.endsWith('…')) {
    expect(String(value).startsWith(like.slice(0, -1)), `${where}: ${String(value)}`).toBe(true);
  } else if (typeof like === 'object' && like !== null) {
    expect(Object.keys(value as object), where).toEqual(Object.keys(like));
    for (const [key, part] of Object.entries(like)) expectLike((value as Record<string, unknown>)[key], part, `${where}.${key}`);
  } else {
    expect(value, where).toEqual(like);
  }
}

/** Node and Bun quote and space printed values differently; the words are the same. */
function words(text: string): string {
  return (text.match(/[\w.-]+/g) ?? []).join(' ');
}
