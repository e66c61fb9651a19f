import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Try",
  },
  zh: {
    title: "试用",
  },
});
