// A supervisor of three agents, which are real processes. It is killed with SIGKILL in the middle of its work, and so is one of the agents.
// The next supervisor adopts the two that live, finds out that the third is dead, restores it, and a reader of the change log goes on
// where it stopped.
//
//   node examples/lifecycle/supervise.mjs
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LifecycleManager, SessionManager, openSessionStore } from 'holdfast/lifecycle';

const self = fileURLToPath(import.meta.url);

// ── the agent: counts, and goes on counting where it stopped when it is resumed ──

const agentProgram = `
  const fs = require('node:fs');
  const memory = process.argv[1];
  let count = fs.existsSync(memory) ? Number(fs.readFileSync(memory, 'utf8')) : 0;
  setInterval(() => fs.writeFileSync(memory, String(++count)), 20);
`;

// ── the ports: how this program runs agents, and where ──

/** Processes, by their number. Numbers are used again by the system, so each has a file of its own that says whose it is. */
const runtime = {
  async create({ workspacePath, env }) {
    const child = spawn(process.execPath, ['-e', agentProgram, path.join(workspacePath, 'memory')], { detached: true, stdio: 'ignore', env: { ...process.env, ...env } });
    await once(child, 'spawn');
    child.unref();
    return { id: String(child.pid), runtimeName: 'process' };
  },
  async isAlive({ id }) {
    try {
      process.kill(Number(id), 0);
    } catch {
      return false;
    }
    // A killed child that nobody has waited for still has a number.
    const stat = `/proc/${id}/stat`;
    return !existsSync(stat) || !/\) Z /.test(readFileSync(stat, 'utf8'));
  },
  async destroy({ id }) {
    try {
      process.kill(Number(id), 'SIGKILL');
    } catch {
      // It is gone already.
    }
  },
};

const agent = {
  getLaunchCommand: () => 'count from zero',
  getRestoreCommand: (conversation) => `go on with ${conversation}`,
  getEnvironment: () => ({}),
};

const workspaceIn = (folder) => {
  const place = ({ projectId, sessionId, branch }) => {
    const workspace = path.join(folder, sessionId);
    mkdirSync(workspace, { recursive: true });
    return { projectId, sessionId, branch, path: workspace };
  };
  return { create: async (config) => place(config), restore: async (config) => place(config), destroy: async (info) => rmSync(info.path, { recursive: true, force: true, maxRetries: 5 }) };
};

const notifier = { notify: async ({ sessionId, message }) => console.log(`  page about ${sessionId}: ${message}`) };
const messenger = { send: async (sessionId, message) => console.log(`  to ${sessionId}: ${message}`) };

// ── the supervisor: one process, which may end at any moment ──

async function supervisor(folder, act) {
  const store = await openSessionStore(path.join(folder, 'state'));
  const lifecycle = new LifecycleManager({ store, notifier, messenger, recentActivityWindowMs: 0 });
  const sessions = new SessionManager({ store, lifecycle, runtime, agent, workspace: workspaceIn(folder), messenger });
  await act({ store, lifecycle, sessions });
  await store.close();
}

const first = (folder) =>
  supervisor(folder, async ({ store, sessions }) => {
    await store.upsertProject({ id: 'demo', path: folder });
    for (const issueId of ['one', 'two', 'three']) {
      const { id, status } = await sessions.spawn({ projectId: 'demo', issueId, prompt: `count for ${issueId}` });
      console.log(`  ${id} is ${status}`);
    }
    const reader = store.consumer('dashboard');
    const events = await reader.read();
    await reader.ack(events.at(-1).seq);
    console.log(`  the dashboard has seen ${events.length} changes`);
    console.log('up');
    await sleep(60_000); // until it is killed
  });

const second = (folder) =>
  supervisor(folder, async ({ store, sessions }) => {
    const { adopted, lost } = await sessions.recover();
    console.log(`  adopted ${adopted.join(', ')}; lost ${lost.join(', ')}`);
    for (const id of lost) {
      const { status } = await sessions.restore(id);
      console.log(`  ${id} is ${status} again`);
    }
    await sessions.kill(adopted[0]);
    for (const { id, status } of await sessions.list('demo')) console.log(`  ${id} is ${status}`);
    const reader = store.consumer('dashboard');
    for (const { type, payload } of await reader.read()) console.log(`  the dashboard hears: ${type} ${payload.id} ${payload.state} ${payload.terminationReason}`.trimEnd());
    for (const { id, lifecycle } of await store.listSessions('demo')) if (lifecycle.isAlive) await sessions.kill(id);
  });

// ── what happens to them ──

async function main() {
  const folder = mkdtempSync(path.join(tmpdir(), 'holdfast-lifecycle-'));
  const run = (name) => spawn(process.execPath, [self, name, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    console.log('first supervisor');
    const host = run('first');
    host.stdout.setEncoding('utf8');
    let printed = '';
    for await (const text of host.stdout) {
      printed += text;
      if (printed.includes('\nup')) break;
    }
    process.stdout.write(printed.replace(/^up$/m, '  kill -9 for the supervisor, and for one agent'));
    host.kill('SIGKILL');
    await once(host, 'exit');
    const store = await openSessionStore(path.join(folder, 'state'));
    const [, victim] = await store.listSessions('demo');
    await store.close();
    process.kill(Number(victim.metadata.runtimeHandleId), 'SIGKILL');
    await sleep(100);

    console.log('second supervisor');
    const next = run('second');
    next.stdout.pipe(process.stdout, { end: false });
    const [code] = await once(next, 'exit');
    if (code !== 0) process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

const [name, folder] = process.argv.slice(2);
if (name === 'first') await first(folder);
else if (name === 'second') await second(folder);
else await main();
