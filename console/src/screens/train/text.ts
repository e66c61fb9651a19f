import { defineText } from "../../text";

export const text = defineText({
  en: {
    title: "Train",
  },
  zh: {
    title: "训练",
  },
});
