/** The call that the page made, for other programs. */

export interface Call {
  url: string;
  model: string;
  confidence: number;
  token: boolean;
  file: string;
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The call as a shell command. */
export function curl({ url, model, confidence, token, file }: Call): string {
  const lines = ["curl -s"];
  if (token) lines.push(`-H "Authorization: Bearer $VISIONLOOP_TOKEN"`);
  lines.push(`-F image=@${quoted(file)}`, `-F model_id=${quoted(model)}`, `-F confidence=${confidence}`, quoted(`${url}/infer`));
  return lines.join(" \\\n  ");
}

/** The call in Python, with httpx. */
export function python({ url, model, confidence, token, file }: Call): string {
  const text = JSON.stringify;
  return [
    ...(token ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${text(file)}, "rb") as image:`,
    "    answer = httpx.post(",
    `        ${text(`${url}/infer`)},`,
    ...(token ? [`        headers={"Authorization": f"Bearer {os.environ['VISIONLOOP_TOKEN']}"},`] : []),
    '        files={"image": image},',
    `        data={`,
    `            "model_id": ${text(model)},`,
    `            "confidence": ${confidence},`,
    "        },",
    "        timeout=60,",
    "    )",
    "answer.raise_for_status()",
    'for found in answer.json()["predictions"]:',
    '    print(found["label"], found["confidence"], found.get("bounding_box"))',
  ].join("\n");
}
