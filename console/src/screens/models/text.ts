import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Models",
  },
  zh: {
    title: "模型",
  },
});
