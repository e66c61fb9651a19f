import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Operate",
  },
  zh: {
    title: "运行",
  },
});
