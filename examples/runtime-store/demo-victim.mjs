// The process that the demo kills. It ends by SIGKILL only: from outside, or at a step named in its faults.
//
//   node demo-victim.mjs write FOLDER FIRST-NUMBER ROUND FAULTS-AS-JSON     writes batch after batch, as fast as it can
//   node demo-victim.mjs recover FOLDER - ROUND FAULTS-AS-JSON              recovers, and is killed while it does so
import { writeSync } from 'node:fs';
import { batch, expectation, open } from './demo-stores.mjs';

const [job, dir, first, round, faults] = process.argv.slice(2);
let number = Number(first);
// A number can come twice, when its batch was undone; an id never does.
const { writer, executor } = open(dir, { faults: JSON.parse(faults), batchIdFactory: () => `round-${round}-batch-${number}` });

if (job === 'recover') {
  await executor.recover(expectation);
} else {
  for (;;) {
    await writer.writeBatch(batch(number));
    // Synchronous: when the kill comes, everything acknowledged so far is in the pipe.
    writeSync(1, `${number}\n`);
    number += 1;
  }
}
