/** Manifests and lockfiles: order, hash, texts. */
import { checkArray, checkString, invalidArgument } from '../check';
import { callSync, native } from '../native';
import { checkInput, checkText, entriesText } from './arguments';
import type { ManifestEntry, PackageSpec } from './types';

const PACKAGE_NAME = 'checkstack-script-packages';

/**
 * The entries by name, then version, then integrity, in a new array. Names and versions are compared as `Intl.Collator('en')` does, in
 * every locale; versions are texts here (`10.0.0` comes before `9.0.0`).
 */
export function sortManifest(entries: ManifestEntry[]): ManifestEntry[] {
  return callSync(() => native.packagesSortOrder(entriesText(entries, 'entries'))).map((index) => entries[index] as ManifestEntry);
}

/** The hash of a manifest, whatever its order: SHA-256, in lower-case hex. `blobSha256` does not count. */
export function computeLockfileHash(entries: ManifestEntry[]): string {
  return callSync(() => native.packagesLockfileHash(entriesText(entries, 'entries')));
}

/** The enabled packages, name to version; the last of a name counts. */
export function buildDependencies(packages: PackageSpec[]): Record<string, string> {
  const specs = Array.from(checkArray(packages, 'packages'), (spec, index) => {
    const at = `packages[${index}]`;
    const { name, version, enabled = true } = checkInput(spec, at);
    if (typeof enabled !== 'boolean') throw invalidArgument(`${at}.enabled`, 'a boolean', enabled);
    return { name: checkText(name, `${at}.name`), version: checkText(version, `${at}.version`), enabled };
  });
  const pairs = JSON.parse(callSync(() => native.packagesBuildDependencies(JSON.stringify(specs)))) as [string, string][];
  return Object.fromEntries(pairs);
}

/** The `package.json` of a set of packages. */
export function buildStorePackageJson(packages: PackageSpec[]): string {
  const pairs = JSON.stringify(Object.entries(buildDependencies(packages)));
  return callSync(() => native.packagesStorePackageJson(PACKAGE_NAME, pairs));
}

/** Splits `name@version` at its last `@`; `undefined` if one half would be empty. */
export function splitSpec(spec: string): { name: string; version: string } | undefined {
  const at = checkString(spec, 'spec').lastIndexOf('@');
  return at > 0 && at < spec.length - 1 ? { name: spec.slice(0, at), version: spec.slice(at + 1) } : undefined;
}

/**
 * The manifest that a `bun.lock` describes: its packages in the order of the lock, each integrity once, bundled ones left out.
 *
 * @throws {PackageStoreError} `HF_PKG_LOCKFILE`
 */
export function parseBunLock(text: string): ManifestEntry[] {
  return JSON.parse(callSync(() => native.packagesParseBunLock(checkString(text, 'text')))) as ManifestEntry[];
}
