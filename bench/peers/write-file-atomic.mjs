// npm's write-file-atomic, one call per store and one for a manifest: syncs each file, never the directory, so a
// power cut may undo the renames of an acknowledged batch.
import { createHash } from 'node:crypto';
import path from 'node:path';
import writeFileAtomic from 'write-file-atomic';

export function openBatchStore(dir) {
  const entries = {};
  let batch = 0;
  return {
    async writeBatch(writes) {
      for (const { name, data } of writes) {
        const raw = JSON.stringify(data, null, 2);
        await writeFileAtomic(path.join(dir, `${name}.json`), raw);
        entries[name] = createHash('sha256').update(raw).digest('hex');
      }
      await writeFileAtomic(path.join(dir, 'manifest.json'), JSON.stringify({ batch: ++batch, entries }));
    },
  };
}
