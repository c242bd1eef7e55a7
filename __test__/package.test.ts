// @pool forks: what counts happens in processes of its own.
// What `npm pack` makes is what users get: it must load by import and by require, be typed in both, and hold neither
// sources nor scripts.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.resolve(__dirname, '..');
const windows = process.platform === 'win32';

function run(command: string, args: string[], cwd: string): string {
  const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', env, shell: windows });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`);
  return stdout;
}

describe('the packed tarball', () => {
  let project: string;
  let installed: string;

  beforeAll(() => {
    project = mkdtempSync(path.join(tmpdir(), 'holdfast-package-'));
    // --ignore-scripts: the addon under test is the one already built.
    run('npm', ['pack', '--ignore-scripts', '--pack-destination', project], root);
    const [tarball] = readdirSync(project).filter((name) => name.endsWith('.tgz'));
    mkdirSync(path.join(project, 'node_modules'));
    run('tar', ['-xzf', tarball!, '-C', 'node_modules'], project);
    installed = path.join(project, 'node_modules/holdfast');
    renameSync(path.join(project, 'node_modules/package'), installed);
  });

  afterAll(() => rmSync(project, { recursive: true, force: true }));

  test('holds the built package and its licences, no sources, no scripts', () => {
    const names = readdirSync(installed);
    for (const name of ['dist', 'index.d.ts', 'native.cjs', 'README.md', 'docs', 'examples', 'LICENSE-MIT', 'LICENSE-APACHE']) {
      expect(names).toContain(name);
    }
    expect(names.filter((name) => /^holdfast\..*\.node$/.test(name))).toHaveLength(1);
    for (const name of ['src', 'src-js', 'scripts', 'bench', '__test__', 'Cargo.toml', 'node_modules']) {
      expect(names).not.toContain(name);
    }
  });

  test('runs nothing at install and depends on nothing', () => {
    const manifest = JSON.parse(readFileSync(path.join(installed, 'package.json'), 'utf8'));
    for (const script of ['preinstall', 'install', 'postinstall']) expect(manifest.scripts).not.toHaveProperty(script);
    expect(manifest).not.toHaveProperty('dependencies');
  });

  test('gives import and require the same instance, from all entries', () => {
    writeFileSync(
      path.join(project, 'both.mjs'),
      `import { createRequire } from 'node:module';
       import * as whole from 'holdfast';
       import * as part from 'holdfast/runtime-store';
       import * as entity from 'holdfast/entity';
       import * as packages from 'holdfast/packages';
       import * as testing from 'holdfast/testing';
       const require = createRequire(import.meta.url);
       const same = (a, b) => Object.keys(b).filter((name) => name !== '__esModule').every((name) => a[name] === b[name]);
       console.log(same(whole, require('holdfast')), same(part, require('holdfast/runtime-store')), same(whole, part));
       console.log(typeof part.VersionedJsonStore, typeof whole.HoldfastError);
       console.log(same(entity, require('holdfast/entity')), same(whole, entity), same(testing, require('holdfast/testing')));
       console.log(typeof entity.createEntityStore, typeof testing.createFakeEntityStore, 'createFakeEntityStore' in whole);
       console.log(same(packages, require('holdfast/packages')), same(whole, packages), typeof packages.reconcileToHash);`,
    );
    const printed = run(process.execPath, ['both.mjs'], project);
    expect(printed).toBe('true true true\nfunction function\ntrue true true\nfunction function false\ntrue true function\n');
  });

  test('needs drizzle-orm for one entry only, and takes the one that the program has', () => {
    const absent = "try { require('holdfast/drizzle'); console.log('found'); } catch (error) { console.log(error.code); }";
    expect(run(process.execPath, ['-e', absent], project)).toBe('MODULE_NOT_FOUND\n');
    writeFileSync(
      path.join(project, 'tables.mjs'),
      `import { createRequire } from 'node:module';
       import { getTableName } from 'drizzle-orm';
       import { entityTransitions } from 'holdfast/drizzle';
       const required = createRequire(import.meta.url)('holdfast/drizzle');
       console.log(getTableName(entityTransitions), required.entityTransitions === entityTransitions);`,
    );
    withDrizzle(() => expect(run(process.execPath, ['tables.mjs'], project)).toBe('entity_transitions true\n'));
  });

  /** Gives the project what a program with drizzle has. */
  function withDrizzle(check: () => void): void {
    const links = ['drizzle-orm', 'pg', '@types'].map((name) => path.join(project, 'node_modules', name));
    for (const link of links) symlinkSync(path.join(root, 'node_modules', path.basename(link)), link, 'junction');
    try {
      check();
    } finally {
      for (const link of links) rmSync(link, { recursive: true });
    }
  }

  // The compiler does not care who starts it: once, in the first of the three runs of this suite, is enough.
  test.skipIf(process.versions.bun).each([
    ['ES modules', 'use.mts', 'node16'],
    ['CommonJS', 'use.cts', 'node16'],
    ['a bundler', 'use.ts', 'bundler'],
  ])('is typed for %s', (_, file, resolution) => {
    writeFileSync(
      path.join(project, file),
      `import { HoldfastError, VersionedJsonStore, type VersionedJsonStoreOptions } from 'holdfast';
       import { VersionedJsonStore as Same } from 'holdfast/runtime-store';
       import { createEntityStore, type EntityStore } from 'holdfast/entity';
       import { createReconcileFsDeps, type ReconcileDeps } from 'holdfast/packages';
       import { createFakeEntityStore } from 'holdfast/testing';
       export const deps: ReconcileDeps = createReconcileFsDeps({ storeRoot: 'x', fetchBlob: async () => new Uint8Array() });
       export const fake: EntityStore = createFakeEntityStore();
       export const store = createEntityStore({ memory: true });
       export const make = (options: VersionedJsonStoreOptions<{ n: number }>): VersionedJsonStore<{ n: number }> => new Same(options);
       export const code = (error: unknown): string | null => (error instanceof HoldfastError ? error.code : null);
       // @ts-expect-error: not exported
       export { noSuchName } from 'holdfast';`,
    );
    const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
    const module = resolution === 'bundler' ? 'esnext' : 'node16';
    const types = ['--typeRoots', path.join(root, 'node_modules/@types'), '--types', 'node'];
    const flags = ['--strict', '--noEmit', '--target', 'ES2022', '--module', module, '--moduleResolution', resolution];
    run(process.execPath, [tsc, ...flags, ...types, file], project);
  });

  // drizzle-orm has two sets of types, which do not fit each other: ours must be the one of the importing file.
  test.skipIf(process.versions.bun)('has tables of the types of drizzle-orm, for ES modules and for CommonJS', () => {
    const files = ['tables.mts', 'tables.cts'];
    for (const file of files) {
      writeFileSync(
        path.join(project, file),
        `import { eq } from 'drizzle-orm';
         import { drizzle } from 'drizzle-orm/node-postgres';
         import { createEntityStore } from 'holdfast';
         import { entityTransitions } from 'holdfast/drizzle';
         const db = drizzle('postgres://localhost/x', { schema: { entityTransitions } });
         export const store = createEntityStore(db);
         export const rows: Promise<{ toValue: string; fromValue: string | null; transitionedAt: Date }[]> =
           db.select().from(entityTransitions).where(eq(entityTransitions.kind, 'k')).execute();`,
      );
    }
    const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
    // The declarations of drizzle-orm itself are not clean without the databases that it can use.
    const flags = ['--strict', '--noEmit', '--skipLibCheck', '--target', 'ES2022', '--module', 'node16', '--types', 'node', '--preserveSymlinks'];
    withDrizzle(() => void run(process.execPath, [tsc, ...flags, ...files], project));
  });
});
