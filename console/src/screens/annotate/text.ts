import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Annotate",
  },
  zh: {
    title: "标注",
  },
});
