/** What the stores beside the sessions have in common. */
import type { SessionGraphStoreOptions } from './store-types';

/** How a store of processes, of effects, or of host events is opened. */
export type SideStoreOptions = Pick<SessionGraphStoreOptions, 'durability' | 'busyTimeoutMs' | 'maxReaders' | 'migrate'>;
