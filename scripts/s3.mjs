// A throw-away S3 server for the tests: moto (PyPI, `moto[s3,server]`), which is kept up with the service and knows conditional writes.
//
//   node scripts/s3.mjs                     prints the path of its program, for HOLDFAST_S3_SERVER of the Rust tests
//   import { startS3 } from './s3.mjs'      starts one on a free loopback port
//
// The program is the one that HOLDFAST_S3_SERVER names, or `moto_server` of the PATH; where there is none, it is installed once into a
// Python environment of its own below node_modules/.cache. Nothing of it is part of the package. Where it cannot be had (no Python, no
// network), what needs it is skipped, and stderr says so: an S3 server is no condition for a good build.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const VERSION = '5.2.1';
const self = fileURLToPath(import.meta.url);
const home = path.resolve(path.dirname(self), `../node_modules/.cache/holdfast-s3-${VERSION}`);
const windows = process.platform === 'win32';
const inHome = path.join(home, windows ? 'Scripts/moto_server.exe' : 'bin/moto_server');

const starts = (program) => spawnSync(program, ['--help'], { stdio: 'ignore', timeout: 60_000 }).status === 0;

/** The path of a server's program that starts, installed if need be; null, and a line on stderr, where that cannot be done. */
export function s3Program() {
  const named = process.env.HOLDFAST_S3_SERVER;
  if (named) {
    if (starts(named)) return named;
    console.error(`HOLDFAST_S3_SERVER names ${named}, which does not start; looking for another one`);
  }
  if (existsSync(inHome)) {
    if (starts(inHome)) return inHome;
    // A Python that was updated or moved leaves its environments behind broken.
    rmSync(home, { recursive: true, force: true });
  }
  const found = spawnSync(windows ? 'where' : 'which', ['moto_server'], { encoding: 'utf8' }).stdout?.split('\n')[0]?.trim();
  if (found && starts(found)) return found;
  const installed = install();
  if (installed === null) {
    console.error(`SKIPPED: what needs an S3 server. None starts, and PyPI's moto[s3,server] cannot be installed here (scripts/s3.mjs)`);
  }
  return installed;
}

function install() {
  mkdirSync(path.dirname(home), { recursive: true });
  for (const python of ['python3', 'python']) {
    if (spawnSync(python, ['-m', 'venv', home], { stdio: 'ignore' }).status !== 0) continue;
    const pip = path.join(path.dirname(inHome), windows ? 'pip.exe' : 'pip');
    const args = ['install', '--quiet', '--disable-pip-version-check', '--retries', '2', `moto[s3,server]==${VERSION}`];
    const { status } = spawnSync(pip, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: 150_000 });
    if (status === 0 && existsSync(inHome) && starts(inHome)) return inHome;
  }
  rmSync(home, { recursive: true, force: true });
  return null;
}

/** Starts a server; null where there is no program. It ends with `stop()`, and with this process. */
export async function startS3() {
  const program = s3Program();
  if (program === null) return null;
  const port = await freePort();
  const child = spawn(program, ['-H', '127.0.0.1', '-p', String(port)], { stdio: 'ignore', windowsHide: true });
  let ended = false;
  child.once('exit', () => (ended = true));
  child.once('error', () => (ended = true));
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const url = `http://127.0.0.1:${port}`;
  for (const began = Date.now(); !(await answers(port)); await sleep(50)) {
    if (ended || Date.now() - began > 60_000) {
      kill();
      throw new Error(`the S3 server ${program} does not start`);
    }
  }
  child.unref();
  const stop = () => {
    process.off('exit', kill);
    kill();
  };
  /** Makes a bucket. */
  const bucket = async (name) => {
    const { status } = await fetch(`${url}/${name}`, { method: 'PUT', headers: { authorization: 'AWS4-HMAC-SHA256 Credential=t/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0' } });
    if (status !== 200) throw new Error(`making the bucket ${name} ended with ${status}`);
    return name;
  };
  return { url, stop, bucket };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const end = (answer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}

if (process.argv[1] === self) {
  const program = s3Program();
  if (program !== null) console.log(program);
}
