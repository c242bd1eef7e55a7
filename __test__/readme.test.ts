// What the README prints must be what happens.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.resolve(__dirname, '..');
const readme = readFileSync(path.join(root, 'README.md'), 'utf8');

/** The text of the fenced block whose opening line is exactly ```` ```<label> ````. */
function block(label: string): string {
  const found = readme.split('```' + label + '\n')[1]?.split('\n```')[0];
  if (found === undefined) throw new Error(`README.md has no block labelled "${label}"`);
  return found;
}

describe('README', () => {
  let project: string;

  beforeAll(() => {
    project = mkdtempSync(path.join(tmpdir(), 'holdfast-readme-'));
    mkdirSync(path.join(project, 'node_modules'));
    symlinkSync(root, path.join(project, 'node_modules/holdfast'), 'junction');
  });

  afterAll(() => rmSync(project, { recursive: true, force: true }));

  test('the first program runs as printed', () => {
    const file = path.join(project, 'first-program.mjs');
    writeFileSync(file, block('js first-program.mjs'));
    const env = { ...process.env, TMPDIR: project, NO_COLOR: '1', FORCE_COLOR: undefined };
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: project, encoding: 'utf8', env });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(words(stdout)).toBe(words(block('text')));
  });

  test('the commands it names exist', () => {
    const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
    const named = [...readme.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name);
    expect(named.length).toBeGreaterThan(3);
    expect(named.filter((name) => !scripts[name!])).toEqual([]);
  });

  test('its links lead somewhere', () => {
    const targets = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, target]) => target!);
    expect(targets.length).toBeGreaterThan(3);
    expect(targets.filter((target) => !existsSync(path.join(root, target)))).toEqual([]);
  });
});

/** Node and Bun quote and space printed arrays differently; the words are the same. */
function words(text: string): string {
  return (text.match(/[\w.-]+/g) ?? []).join(' ');
}
