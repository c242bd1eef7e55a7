/** Looks at one store file. */
import { resolve } from 'node:path';

import { checkArray, checkNonEmptyString, checkPath, checkPlainObject } from '../check';
import { call, native } from '../native';
import { checkRuntimeStoreDescriptor } from './descriptors';
import { registerInspector } from './internals';
import type { RuntimeStoreDescriptor, RuntimeStoreFileInspection, RuntimeStoreManifest } from './types';

/** Compares store files with what a manifest says of them. It only looks: nothing is moved or written. */
export class RuntimeStoreFileInspector {
  readonly #dir: string;

  /** @param teamRuntimeDirectory The runtime directory; it need not exist. */
  constructor(teamRuntimeDirectory: string) {
    this.#dir = resolve(checkPath(teamRuntimeDirectory, 'teamRuntimeDirectory'));
    registerInspector(this, this.#dir);
  }

  /**
   * Inspects the file of `descriptor`. The first that applies wins: missing, not JSON, no envelope, written by a newer version, unknown
   * to the manifest, other bytes than committed, healthy.
   *
   * @throws RuntimeStorePathError; HoldfastError with Node's `code` for I/O errors other than a missing file, `HF_INVALID_ARGUMENT`.
   */
  async inspect(input: { descriptor: RuntimeStoreDescriptor; manifest: RuntimeStoreManifest }): Promise<RuntimeStoreFileInspection> {
    checkPlainObject(input, 'input');
    const descriptor = checkRuntimeStoreDescriptor(input.descriptor, 'input.descriptor');
    const manifest = checkPlainObject(input.manifest, 'input.manifest');
    const entries = Array.from(checkArray(manifest.entries, 'input.manifest.entries'), (entry, index) => checkPlainObject(entry, `input.manifest.entries[${index}]`));
    const manifestEntry = entries.find((entry) => entry.schemaName === descriptor.schemaName) ?? null;
    const names = [...entries.map((entry) => checkNonEmptyString(entry.schemaName, 'a schemaName in input.manifest.entries')), descriptor.schemaName];
    const text = await call(native.inspectStore(this.#dir, JSON.stringify(descriptor), JSON.stringify(manifest), names));
    const { state, message, entry } = JSON.parse(text) as Pick<RuntimeStoreFileInspection, 'state' | 'message' | 'entry'>;
    return { descriptor: input.descriptor, state, message, entry, manifestEntry };
  }
}
