import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Loop",
  },
  zh: {
    title: "闭环",
  },
});
