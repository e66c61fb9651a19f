import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Data",
  },
  zh: {
    title: "数据",
  },
});
