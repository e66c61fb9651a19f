/** An image with objects drawn over it, on a stage that is always dark. */
import { useEffect, useRef, useState } from "preact/hooks";
import { nameColour } from "../colours";

/** An object in pixels of the image, origin top-left. */
export interface StageObject {
  label: string;
  score?: number | null;
  box?: readonly [number, number, number, number] | null;
  rings?: readonly (readonly (readonly [number, number])[])[];
  points?: readonly { x: number; y: number; visible?: boolean }[];
  /** Dashed: a model's; solid: a person's. */
  source: "model" | "person";
  colour?: string;
}

export interface ImageStageProps {
  src: string;
  alt: string;
  /** Size of the image that the objects' coordinates mean. */
  width: number;
  height: number;
  objects: readonly StageObject[];
  /** The object that is highlighted, such as one hovered in a list. */
  active?: number | null;
  onActive?: (index: number | null) => void;
  /** The browser cannot show the image, or turns it otherwise than the server does. */
  onBroken?: () => void;
  /** Labels are drawn up to so many objects; above, only the active one's. */
  labelled?: number;
}

export function ImageStage(props: ImageStageProps) {
  const { src, alt, width, height, objects, active = null, onActive, onBroken, labelled = 60 } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(() => setSize(box.current?.clientWidth ?? 0));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = canvas.current!;
    const ratio = devicePixelRatio || 1;
    const scale = size / width;
    element.width = Math.round(size * ratio);
    element.height = Math.round(height * scale * ratio);
    const context = element.getContext("2d");
    if (!context || !size) return;
    context.scale(ratio, ratio);
    objects.forEach((object, at) => draw(context, object, scale, at === active));
    objects.forEach((object, at) => (objects.length <= labelled || at === active) && tag(context, object, scale)); // over all outlines
  }, [size, width, height, objects, active]);
  const hover = (event: PointerEvent) => {
    if (!onActive) return;
    const bounds = canvas.current!.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * width;
    const y = ((event.clientY - bounds.top) / bounds.height) * height;
    onActive(smallestAt(objects, x, y));
  };
  return (
    <div class="stage">
      <div class="stage-fit" ref={box} style={{ aspectRatio: `${width} / ${height}`, maxWidth: `calc(70vh * ${width / height})` }}>
        <img
          src={src}
          alt={alt}
          draggable={false}
          onError={onBroken}
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => (width - height) * (naturalWidth - naturalHeight) < 0 && onBroken?.()}
        />
        <canvas ref={canvas} aria-hidden="true" onPointerMove={hover} onPointerLeave={() => onActive?.(null)} />
      </div>
    </div>
  );
}

function boundsOf(object: StageObject): readonly [number, number, number, number] | null {
  if (object.box) return object.box;
  const points = (object.rings ?? []).flat();
  if (!points.length) return null;
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function smallestAt(objects: readonly StageObject[], x: number, y: number): number | null {
  let best: number | null = null;
  let smallest = Infinity;
  objects.forEach((object, at) => {
    const bounds = boundsOf(object);
    if (!bounds) return;
    const [x1, y1, x2, y2] = bounds;
    const area = (x2 - x1) * (y2 - y1);
    if (x >= x1 && x <= x2 && y >= y1 && y <= y2 && area < smallest) [best, smallest] = [at, area];
  });
  return best;
}

function draw(context: CanvasRenderingContext2D, object: StageObject, scale: number, active: boolean): void {
  const colour = object.colour ?? nameColour(object.label);
  const path = new Path2D();
  if (object.rings?.length) {
    for (const ring of object.rings) {
      ring.forEach(([x, y], at) => (at ? path.lineTo(x * scale, y * scale) : path.moveTo(x * scale, y * scale)));
      path.closePath();
    }
  } else if (object.box) {
    const [x1, y1, x2, y2] = object.box;
    path.rect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
  }
  context.save();
  context.lineJoin = "round";
  if (active) {
    context.globalAlpha = 0.22;
    context.fillStyle = colour;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
  }
  context.strokeStyle = "rgb(0 0 0 / 0.65)"; // a casing: the colour is seen on any image
  context.lineWidth = active ? 5 : 3.5;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = active ? 2.5 : 1.75;
  if (object.source === "model") context.setLineDash([6, 4]);
  context.stroke(path);
  context.setLineDash([]);
  for (const point of object.points ?? []) {
    context.beginPath();
    context.arc(point.x * scale, point.y * scale, active ? 4.5 : 3.5, 0, 7);
    context.fillStyle = point.visible === false ? "rgb(0 0 0 / 0.5)" : colour;
    context.fill();
    context.lineWidth = 1.25;
    context.strokeStyle = point.visible === false ? colour : "rgb(0 0 0 / 0.7)";
    context.stroke();
  }
  context.restore();
}

function tag(context: CanvasRenderingContext2D, object: StageObject, scale: number): void {
  const bounds = boundsOf(object);
  if (bounds) {
    const text = object.score === null || object.score === undefined ? object.label : `${object.label} ${object.score.toFixed(2)}`;
    context.font = "12px system-ui, sans-serif";
    const wide = context.measureText(text).width + 8;
    const left = Math.max(0, Math.min(bounds[0] * scale, context.canvas.clientWidth - wide));
    const top = bounds[1] * scale >= 18 ? bounds[1] * scale - 18 : bounds[1] * scale;
    context.fillStyle = "rgb(16 19 23 / 0.82)";
    context.fillRect(left, top, wide, 17);
    context.fillStyle = object.colour ?? nameColour(object.label);
    context.fillText(text, left + 4, top + 12.5);
  }
}
