/** Copied shapes, kept from image to image. */

import { extentOf, mapped, moveShapes, rounded } from "./geometry.ts";
import { ofPerson, type Shape, type Size } from "./shape.ts";

const STEP = 10; // pixels a copy is set aside, so that it does not hide what it was copied from

export class Clipboard {
  private shapes: readonly Shape[] = [];
  private from: unknown = null;
  private pasted = 0;

  get size(): number {
    return this.shapes.length;
  }

  /** Keep shapes of an image; `image` is any value that stands for it. */
  copy(shapes: readonly Shape[], image: unknown): void {
    this.shapes = shapes;
    this.from = image;
    this.pasted = 0;
  }

  /**
   * The copies for an image: on another image where they were, on the same one a little aside.
   *
   * What reaches beyond a smaller image is moved in, and scaled down if it is larger than it.
   */
  paste(image: unknown, size: Size, by: string, newId: () => string): Shape[] {
    if (image !== this.from) this.pasted = 0;
    const aside = image === this.from ? STEP * (++this.pasted % 10) : 0;
    return this.shapes.map((shape) => copied(shape, aside, size, by, newId()));
  }
}

/** A person's copy of a shape with a new id, set aside by some pixels, within the image. */
export function copied(shape: Shape, aside: number, size: Size, by: string, id: string): Shape {
  const copy = { ...ofPerson(shape, by), by, id };
  const extent = extentOf(copy);
  if (!extent) return copy;
  const [width, height] = [extent[2] - extent[0], extent[3] - extent[1]];
  const scale = Math.min(1, size.width / width, size.height / height);
  const within = (at: number, length: number, end: number) => Math.min(Math.max(at, 0), Math.max(end - length, 0));
  const left = within(extent[0], width * scale, size.width);
  const top = within(extent[1], height * scale, size.height);
  const fits = scale === 1 && left === extent[0] && top === extent[1];
  const placed = fits
    ? copy
    : mapped(copy, ([x, y]) => [
        rounded(left + (x - extent[0]) * scale),
        rounded(top + (y - extent[1]) * scale),
      ]);
  return moveShapes([placed], [aside, aside], size)[0]!;
}
