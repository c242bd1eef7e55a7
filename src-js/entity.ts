/** Entity handles: reactive state with a history that cannot be lost. */
export type * from './entity/types';
export { EntityValidationError } from './errors';
export { createEntityRegistry } from './entity/registry';
export { createEntityHandle } from './entity/handle';
export { getEntityFailure } from './entity/failures';
export { createEntityStore } from './entity/create-store';
export { ACTOR_TYPES, EntityChangedSchema, SYSTEM_ACTOR } from './entity/change-schema';
export { createEntityChangeBus } from './entity/change-bus';
export { createChangeEmitter } from './entity/emitter';
export { ENTITY_CHANGED_HOOK, createEntityChangedSubscriptions } from './entity/subscriptions';
export { createChangeDeriverRegistry } from './entity/derivers';
export { withEntityRemove, withEntityWrite } from './entity/guards';
export { diffEntityState } from './entity/diff';
export { stableStringify, structurallyEqual } from './entity/canonical';
export { serializeFieldValue } from './entity/field-text';
export { DEFAULT_MASK_TOKEN, MIN_MASKABLE_LENGTH, maskSecrets, maskSecretsDeep } from './entity/mask';
export { createRunSecretRegistry } from './entity/run-secrets';
export { wrapGetServiceForRun } from './entity/run-services';
