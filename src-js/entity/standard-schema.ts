/** The public interface of Standard Schema, version 1 (https://standardschema.dev), which asks to be copied instead of depended on. */

/** A schema of any library that implements Standard Schema v1: valibot, arktype, effect, a hand-written one … */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  /** What the standard defines. */
  readonly '~standard': StandardSchemaV1.Props<Input, Output>;
}

/** The parts of the interface. */
export declare namespace StandardSchemaV1 {
  /** What the standard defines. */
  export interface Props<Input = unknown, Output = Input> {
    /** The version of the standard. */
    readonly version: 1;
    /** The name of the schema library. */
    readonly vendor: string;
    /** Validates an unknown value. */
    readonly validate: (value: unknown) => Result<Output> | Promise<Result<Output>>;
    /** Types only; never there at run time. */
    readonly types?: Types<Input, Output> | undefined;
  }

  /** What a validation found. */
  export type Result<Output> = SuccessResult<Output> | FailureResult;

  /** The value was accepted. */
  export interface SuccessResult<Output> {
    /** The value, with defaults and transforms applied. */
    readonly value: Output;
    /** Absent: that is what tells the two results apart. */
    readonly issues?: undefined;
  }

  /** The value was refused. */
  export interface FailureResult {
    /** Why. */
    readonly issues: ReadonlyArray<Issue>;
  }

  /** One reason why a value was refused. */
  export interface Issue {
    /** The reason in words. */
    readonly message: string;
    /** Where in the value, from the outside in. */
    readonly path?: ReadonlyArray<PropertyKey | PathSegment> | undefined;
  }

  /** One step of an issue's path. */
  export interface PathSegment {
    /** The key of the step. */
    readonly key: PropertyKey;
  }

  /** What goes into a schema and what comes out. */
  export interface Types<Input = unknown, Output = Input> {
    /** The type of what goes in. */
    readonly input: Input;
    /** The type of what comes out. */
    readonly output: Output;
  }

  /** The type that goes into a schema. */
  export type InferInput<Schema extends StandardSchemaV1> = NonNullable<Schema['~standard']['types']>['input'];

  /** The type that comes out of a schema. */
  export type InferOutput<Schema extends StandardSchemaV1> = NonNullable<Schema['~standard']['types']>['output'];
}
