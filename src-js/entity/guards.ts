/** Writes for code that also runs where no entity is defined. */
import type { EntityHandle, MutateInput, RemoveInput } from './types';

/** Mutates through the handle, or just runs `apply` where there is none. */
export async function withEntityWrite<T extends Record<string, unknown>>(
  args: { handle: Pick<EntityHandle<T>, 'mutate'> | undefined } & MutateInput<T>,
): Promise<void> {
  const { handle, id, opts, apply } = args;
  await (handle ? handle.mutate({ id, opts, apply }) : apply());
}

/** Removes through the handle, or just runs `apply` where there is none. */
export async function withEntityRemove<T extends Record<string, unknown>>(
  args: { handle: Pick<EntityHandle<T>, 'remove'> | undefined } & RemoveInput,
): Promise<void> {
  const { handle, id, opts, apply } = args;
  await (handle ? handle.remove({ id, opts, apply }) : apply());
}
