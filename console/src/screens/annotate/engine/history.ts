/** Undo to the beginning and redo, in bounded memory. */

/**
 * The states before and after each step.
 *
 * States are immutable and share what did not change, so a step costs a list of references and the
 * shapes it edited. Beyond `limit` steps the oldest states go, but never the first of all: the last
 * undo always leads to the beginning.
 */
export class History<T> {
  private past: T[] = [];
  private future: T[] = [];
  private readonly limit: number;

  constructor(limit = 1000) {
    this.limit = Math.max(limit, 2);
  }

  get steps(): number {
    return this.past.length;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  /** A step was done: `before` is the state it began from. */
  push(before: T): void {
    this.past.push(before);
    if (this.past.length > this.limit) this.past.splice(1, 1);
    this.future = [];
  }

  undo(now: T): T | undefined {
    const before = this.past.pop();
    if (before !== undefined) this.future.push(now);
    return before;
  }

  redo(now: T): T | undefined {
    const after = this.future.pop();
    if (after !== undefined) this.past.push(now);
    return after;
  }
}
