import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.ts'],
    globalSetup: ['__test__/support/postgres-setup.ts'],
    // Crash tests start and kill real processes; on a loaded machine that takes seconds.
    testTimeout: 60_000,
    // Most of the time goes into waiting for locks, kills and disks.
    maxWorkers: 2,
    hookTimeout: 60_000,
    // The package under test is loaded by Node itself, as users load it, not transformed by vite.
    server: { deps: { external: [/\/dist\//] } },
  },
});
