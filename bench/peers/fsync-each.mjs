// The conventional careful way, in plain Node: each file to a temporary name, fsync, rename; the manifest likewise;
// then one fsync of the directory. n + 2 syncs in a row; durable, but a crash in the middle leaves a mixed batch.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

export function openBatchStore(dir) {
  const folder = fs.openSync(dir, 'r');
  const entries = {};
  let batch = 0;
  const put = (name, raw) => {
    const temporary = path.join(dir, `.tmp.${name}`);
    const file = fs.openSync(temporary, 'w');
    fs.writeSync(file, raw);
    fs.fsyncSync(file);
    fs.closeSync(file);
    fs.renameSync(temporary, path.join(dir, name));
  };
  return {
    writeBatch(writes) {
      for (const { name, data } of writes) {
        const envelope = { schemaVersion: 1, updatedAt: new Date().toISOString(), data };
        const raw = `${JSON.stringify(envelope, null, 2)}\n`;
        put(`${name}.json`, raw);
        entries[name] = createHash('sha256').update(raw).digest('hex');
      }
      put('manifest.json', JSON.stringify({ batch: ++batch, entries }));
      fs.fsyncSync(folder);
    },
    close: () => fs.closeSync(folder),
  };
}
