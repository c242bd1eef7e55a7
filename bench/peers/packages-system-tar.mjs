// Packing and unpacking by the system's `tar` and `gzip`, one process per package. Checks nothing beforehand, syncs nothing.
import { spawn } from 'node:child_process';
import fs from 'node:fs';

export const packDir = ({ parentDir, entryName }) => tar(['-czf', '-', '-C', parentDir, entryName]);

export async function unpackInto({ targetDir, bytes }) {
  fs.mkdirSync(targetDir, { recursive: true });
  await tar(['-xzf', '-', '-C', targetDir], bytes);
}

function tar(args, input) {
  return new Promise((resolve, reject) => {
    const child = spawn('tar', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(Buffer.concat(chunks)) : reject(new Error(`tar ended with ${code}`))));
    child.stdin.end(input);
  });
}
