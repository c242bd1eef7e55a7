/** All types of the module. */
export type { Log, Logger } from '../logging';
export type * from './word-types';
export type * from './record-types';
export type * from './change-types';
export type * from './observation-types';
export type * from './port-types';
export type * from './store-types';
export type * from './policy-types';
export type * from './manager-types';
export type * from './timeline-types';
export type * from './inbox-types';
