// Who is measured, and how each is opened. A contender module exports either
//   the runtime store's own API (RuntimeStoreBatchWriter, createRuntimeStoreManifestStore, ...): runs every case; or
//   openBatchStore(dir) -> { writeBatch([{ name, data }]), close?() }: runs the cases about batches.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadContenders } from './lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const identity = { runId: 'run-1', capabilitySnapshotId: 'cap-1', behaviorFingerprint: 'fp-1' };
const expected = {
  teamName: 'bench',
  expectedRunId: identity.runId,
  expectedCapabilitySnapshotId: identity.capabilitySnapshotId,
  expectedBehaviorFingerprint: identity.behaviorFingerprint,
};

export const hasRuntimeStore = (module) => typeof module.RuntimeStoreBatchWriter === 'function';

/** Opens a contender on a folder: writeBatch(stores, data), close(), and for a runtime store plan() and recover(). */
export function open(module, dir, writerOptions = module.writerOptions) {
  if (!hasRuntimeStore(module)) {
    const store = module.openBatchStore(dir);
    const writesOf = (count, data) => Array.from({ length: count }, (_, i) => ({ name: `store-${i}`, data }));
    return {
      writeBatch: (count, data) => store.writeBatch(writesOf(count, data)),
      close: () => store.close?.(),
    };
  }
  const descriptors = module.OPENCODE_RUNTIME_STORE_DESCRIPTORS;
  const manifest = module.createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'bench' });
  const receipts = module.createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
  const writer = new module.RuntimeStoreBatchWriter(dir, manifest, receipts, writerOptions);
  const inspector = new module.RuntimeStoreFileInspector(dir);
  const planner = new module.RuntimeStoreRecoveryPlanner(descriptors, manifest, receipts, inspector);
  const Executor = module.RuntimeStoreRecoveryExecutor;
  return {
    writeBatch: (count, data) => {
      const writes = descriptors.slice(0, count).map((descriptor) => ({ descriptor, data }));
      return writer.writeBatch({ teamName: 'bench', ...identity, reason: 'launch_checkpoint', writes });
    },
    plan: () => planner.buildPlan(expected),
    recover: Executor && (() => new Executor(dir, planner, writer).recover(expected)),
    close: async () => {
      await writer.close?.();
      await manifest.close?.();
      await receipts.close?.();
    },
  };
}

/** Installs the peers beside this file when they are not there yet; says so when that fails. */
function installPeers() {
  if (fs.existsSync(path.join(here, 'node_modules/better-sqlite3/build/Release/better_sqlite3.node'))) return;
  console.log('bench: installing the peers into bench/node_modules (better-sqlite3 may compile for a minute)');
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const { status } = spawnSync(npm, ['ci', '--no-fund', '--no-audit'], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) console.error('bench: `npm ci` in bench/ failed; peers that cannot be loaded are left out');
}

/** holdfast first (the yardstick of all ratios), then its weaker mode, the peers that load, and the caller's own. */
export async function allContenders(extra, { peers = true } = {}) {
  const builtIn = ['holdfast=entries/holdfast.mjs', 'holdfast, process=entries/holdfast-process.mjs'];
  const contenders = await loadContenders(builtIn.map(absolute));
  if (peers) {
    installPeers();
    for (const name of ['sqlite', 'lmdb', 'write-file-atomic', 'fsync-each']) {
      try {
        contenders.push(...(await loadContenders([absolute(`${name}=peers/${name}.mjs`)])));
      } catch (error) {
        console.error(`SKIPPED: peer ${name} cannot be loaded: ${String(error.message).split('\n')[0]}`);
      }
    }
  }
  return [...contenders, ...(await loadContenders(extra))];
}

const absolute = (spec) => spec.replace('=', `=${here}${path.sep}`);
