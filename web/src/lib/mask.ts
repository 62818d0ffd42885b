/** A mask as brush strokes: where to paint, in parts of the picture's width and height. */

export interface Stroke {
  points: { x: number; y: number }[];
  /** Diameter as a part of the picture's shorter side. */
  size: number;
  erase: boolean;
}

const LONGEST = 512;

/** Draw strokes over a canvas that was cleared, in one colour. */
export function drawStrokes(
  context: CanvasRenderingContext2D,
  strokes: readonly Stroke[],
  colour: string,
): void {
  const { width, height } = context.canvas;
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const stroke of strokes) {
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = stroke.size * Math.min(width, height);
    context.beginPath();
    const [first, ...rest] = stroke.points;
    if (!first) continue;
    context.arc(first.x * width, first.y * height, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.moveTo(first.x * width, first.y * height);
    for (const { x, y } of rest) context.lineTo(x * width, y * height);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

/** The mask as the server wants it: a black PNG, white where to paint. */
export async function maskFile(
  strokes: readonly Stroke[],
  width: number,
  height: number,
): Promise<Blob> {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const painted = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale));
  const brush = painted.getContext("2d") as OffscreenCanvasRenderingContext2D;
  drawStrokes(brush as unknown as CanvasRenderingContext2D, strokes, "#fff");
  const whole = new OffscreenCanvas(painted.width, painted.height);
  const context = whole.getContext("2d") as OffscreenCanvasRenderingContext2D;
  context.fillStyle = "#000";
  context.fillRect(0, 0, whole.width, whole.height);
  context.drawImage(painted, 0, 0);
  return whole.convertToBlob({ type: "image/png" });
}
