/** A Postgres server of one's own, on a free loopback port and in a temporary folder; `fsync` is on. */
export interface PostgresServer {
  /** `postgres://user:password@127.0.0.1:port/database`. */
  readonly url: string;
  /** The TCP port; the same after a restart. */
  readonly port: number;
  /** The data folder. */
  readonly directory: string;
  /** The process id of the server; another one after a restart. */
  pid(): number;
  /** Ends the server and all its sessions by SIGKILL, as a crash would. */
  kill(): Promise<void>;
  /** Starts a killed server again, on the same port and data; resolves when it takes connections. */
  start(): Promise<void>;
  /** Ends the server and removes its folder. */
  stop(): Promise<void>;
}

/** Starts a server. It keeps no process alive, and is stopped and removed when the process that started it ends, however it ends. */
export function startPostgres(options?: {
  /** Further arguments of the server, such as `'-c', 'max_connections=20'`. */
  flags?: string[];
}): Promise<PostgresServer>;
