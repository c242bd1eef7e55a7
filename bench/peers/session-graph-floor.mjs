// Not a store: what the disk alone takes for one durable write. 4 KB into a file that is there, then fdatasync.
import fs from 'node:fs';
import path from 'node:path';

export const isFloor = true;

export async function openGraph(dir) {
  const fd = fs.openSync(path.join(dir, 'floor'), 'w');
  const page = Buffer.alloc(4096, 'x');
  const pages = 4096;
  fs.writeSync(fd, Buffer.alloc(pages * 4096), 0, pages * 4096, 0);
  fs.fsyncSync(fd);
  let at = 0;
  const write = async () => {
    fs.writeSync(fd, page, 0, page.length, (at++ % pages) * 4096);
    fs.fdatasyncSync(fd);
  };
  return { floor: write, close: async () => fs.closeSync(fd) };
}
