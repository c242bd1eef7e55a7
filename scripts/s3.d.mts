export interface S3Server {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** Makes a bucket; its name. */
  bucket(name: string): Promise<string>;
  stop(): void;
}
export function s3Program(): string | null;
export function startS3(): Promise<S3Server | null>;
