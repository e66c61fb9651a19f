/** A thumbnail with the boxes of its objects over it. */
import { useState } from "preact/hooks";
import { local, type Schemas } from "../../api";
import { nameColour } from "../../colours";
import { Icon } from "../../components/Icon";
import { text } from "./text";

export type ListedImage = Schemas["ListedImage"];

export interface ThumbnailProps {
  image: ListedImage;
  boxes?: boolean;
  /** Colour of a class; by its name if it is not given. */
  colour?: (name: string) => string;
}

export function Thumbnail({ image, boxes = true, colour = nameColour }: ThumbnailProps) {
  const [failed, setFailed] = useState(false);
  if (failed || !image.thumbnail_url || image.state === "unreadable") {
    return (
      <span class="data-thumb broken">
        <Icon name="warn" />
        <span class="small">{text().grid.noThumbnail}</span>
      </span>
    );
  }
  const wide = image.width * 3 >= image.height * 4;
  const shape = { aspectRatio: `${image.width} / ${image.height}` };
  return (
    <span class="data-thumb">
      <span class={wide ? "data-fit wide" : "data-fit"} style={shape}>
        <img src={local(image.thumbnail_url)} alt="" loading="lazy" decoding="async" draggable={false} onError={() => setFailed(true)} />
        {boxes && image.boxes.length > 0 && (
          <svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true" class={image.state === "predicted" ? "dashed" : ""}>
            {image.boxes.map(([name, x1, y1, x2, y2], at) => (
              <rect key={at} x={x1 * 1000} y={y1 * 1000} width={Math.max(0, x2 - x1) * 1000} height={Math.max(0, y2 - y1) * 1000} stroke={colour(name)} />
            ))}
          </svg>
        )}
      </span>
    </span>
  );
}

/** Words for what an image shows: "car, 2 dog". */
export function contentsOf(image: ListedImage): string {
  return Object.entries(image.classes)
    .map(([name, count]) => (count > 1 ? `${count} ${name}` : name))
    .join(", ");
}
