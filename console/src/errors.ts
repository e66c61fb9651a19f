/** The errors of requests; apart from `api`, which needs a page. */

/** An error answer of the API. `message` says what to do. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly status: number;
  readonly code: string;
  readonly requestId: string;
  /** The whole answer, for errors with further fields. */
  readonly body: Record<string, unknown>;

  constructor(status: number, body: Record<string, unknown>) {
    super(String(body.message ?? `The server answered ${status}.`));
    this.status = status;
    this.code = String(body.code ?? "");
    this.requestId = String(body.request_id ?? "");
    this.body = body;
  }
}

/** The server could not be reached: it is stopped, or the network is gone. */
export class Unreachable extends Error {
  override name = "Unreachable";
}
