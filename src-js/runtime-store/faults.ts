/** Faults on demand, so that applications can test their own recovery with the engine's real failure paths. */
import { checkArray, invalidArgument, isRecord } from '../check';
import { native } from '../native';
import type { FaultRules } from './internals';

/**
 * One fault to inject into a writer or store. Rules belong to the handle that they are given to and cost nothing where there are
 * none.
 */
export interface RuntimeStoreFault {
  /** A step of the batch protocol, in their order. */
  point?:
    | 'after_lock'
    | 'after_stage_files'
    | 'after_commit_point'
    | 'between_publish'
    | 'after_publish'
    | 'before_cleanup'
    | 'in_undo'
    | 'in_recovery';
  /** Or a file operation. */
  op?: 'read' | 'stat' | 'list' | 'create' | 'write' | 'syncFile' | 'syncDir' | 'rename' | 'link' | 'remove' | 'createDir' | 'removeDir';
  /** Only operations on paths that end with this. */
  pathEnds?: string;
  /** Which occurrence, counted from 1; 0 means every one. Default 1. */
  nth?: number;
  /**
   * `'kill'` ends the process at once, as `kill -9` does; `{ errno }` fails with this number of the operating system (28 is "disk
   * full" on Linux); `{ pauseMs }` waits; `{ shortWrite }` lets a write take so many bytes at a time.
   */
  action: 'kill' | { errno: number } | { pauseMs: number } | { shortWrite: number };
}

/** Checks the rules and hands them to the engine. */
export function loadFaults(rules: RuntimeStoreFault[] | undefined, argument: string): FaultRules {
  if (rules === undefined) return undefined;
  checkArray(rules, argument);
  for (const [index, rule] of rules.entries()) {
    const named = isRecord(rule) && (typeof rule.point === 'string') !== (typeof rule.op === 'string');
    if (!named) throw invalidArgument(`${argument}[${index}]`, 'a rule with either a point or an op', rule);
  }
  return new native.Faults(JSON.stringify(rules));
}
