/** Words that several screens use. */
import { defineText } from "../text";

export const words = defineText({
  en: {
    close: "Close",
    cancel: "Cancel",
    retry: "Try again",
    copy: "Copy",
    copied: "Copied",
    loading: "Loading…",
    unreachable: "The server cannot be reached. Is it running? This page tries again by itself.",
    reference: (id: string) => `Request ${id}: the server's log has the details.`,
    unexpected: "This page made a mistake. Reload it; if it stays, report the message below.",
    save: "Save",
    open: "Open",
    time: "time",
    states: {
      queued: "queued",
      running: "running",
      stopping: "cancelling",
      stopped: "cancelled",
      completed: "completed",
      failed: "failed",
    },
  },
  zh: {
    close: "关闭",
    cancel: "取消",
    retry: "重试",
    copy: "复制",
    copied: "已复制",
    loading: "加载中…",
    unreachable: "无法连接服务器。服务器在运行吗？本页会自动重试。",
    reference: (id: string) => `请求 ${id}：详情见服务器日志。`,
    unexpected: "本页出错了。请刷新；若仍出现，请反馈下面的信息。",
    save: "保存",
    open: "打开",
    time: "时间",
    states: {
      queued: "排队中",
      running: "运行中",
      stopping: "正在取消",
      stopped: "已取消",
      completed: "已完成",
      failed: "失败",
    },
  },
});
